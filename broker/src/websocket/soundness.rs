//! What must hold of a WebSocket, whatever bytes a client sends. The fuzz target checks it too.

use std::io::{self, Read, Write};

use tungstenite::Message;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};

use crate::websocket::{MESSAGE_BYTES_MAX, Received, Violation, WebSocket};

const REQUEST: &[u8] = b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Protocol: mqtt\r\n\r\n";

/// The first byte says how what follows is cut (0: not at all), and by its highest bit whether a good
/// request was received before.
pub(crate) fn check_input(input: &[u8]) {
    let Some((&first, bytes)) = input.split_first() else { return };
    let chunk_bytes = usize::from(first & 0x7F);
    let is_open = first & 0x80 != 0;
    let whole = Run::of(is_open, bytes, bytes.len());
    if chunk_bytes > 0 {
        assert_eq!(Run::of(is_open, bytes, chunk_bytes), whole, "cut differently, it means the same");
    }
    whole.check(bytes);
    if is_open && whole.received == Ok(Received::More) {
        let theirs = tungstenites(bytes);
        assert_eq!(theirs, whole.packets.get(..theirs.len()).unwrap_or_default(), "another reads it so too");
    }
}

#[derive(Debug, PartialEq)]
struct Run {
    received: Result<Received, Violation>,
    packets: Vec<u8>,
    answers: Vec<u8>,
    close: Vec<u8>,
}

impl Run {
    fn of(is_open: bool, bytes: &[u8], chunk_bytes: usize) -> Self {
        let mut websocket = WebSocket::new();
        let (mut packets, mut answers, mut close) = (Vec::new(), Vec::new(), Vec::new());
        let mut received = Ok(Received::More);
        if is_open {
            received = websocket.receive(&mut REQUEST.to_vec(), &mut packets, &mut answers);
            assert_eq!(received, Ok(Received::More));
            assert!(answers.starts_with(b"HTTP/1.1 101 "));
            answers.clear();
        }
        for chunk in bytes.chunks(chunk_bytes.max(1)) {
            received = websocket.receive(&mut chunk.to_vec(), &mut packets, &mut answers);
            if received != Ok(Received::More) {
                break;
            }
        }
        websocket.close(&mut close);
        websocket.send(b"late", &mut close);
        Self { received, packets, answers, close }
    }

    fn check(&self, bytes: &[u8]) {
        assert!(self.packets.len() <= bytes.len(), "packets come out of frames alone");
        let mut answers = &self.answers[..];
        if answers.starts_with(b"HTTP/1.1 ") {
            let end = answers.windows(4).position(|end| end == b"\r\n\r\n").expect("a whole answer");
            answers = &answers[end + 4..];
        }
        assert!(answers.len() <= bytes.len(), "an answer is never longer than what it answers");
        while !answers.is_empty() {
            assert_eq!(next_opcode(&mut answers), OpCode::Control(Control::Pong));
        }
        let mut close = &self.close[..];
        if !close.is_empty() {
            assert_eq!(next_opcode(&mut close), OpCode::Control(Control::Close));
        }
        assert!(close.is_empty(), "nothing follows the close frame");
        let refused = matches!(self.received, Err(Violation::Upgrade(_)));
        assert!(!refused || self.packets.is_empty() && self.close.is_empty());
    }
}

/// Of a server's frame, which must be whole and unmasked.
fn next_opcode(frames: &mut &[u8]) -> OpCode {
    let mut cursor = io::Cursor::new(*frames);
    let (header, len) = FrameHeader::parse(&mut cursor).expect("a header").expect("a whole header");
    assert_eq!(header, FrameHeader { opcode: header.opcode, ..FrameHeader::default() });
    assert_ne!(header.opcode, OpCode::Data(Data::Text));
    let behind = usize::try_from(cursor.position() + len).expect("short");
    *frames = &frames[behind..];
    header.opcode
}

/// What tungstenite's own reader makes of complete binary messages.
fn tungstenites(bytes: &[u8]) -> Vec<u8> {
    let bytes_max = usize::try_from(MESSAGE_BYTES_MAX).expect("small");
    let config = WebSocketConfig::default()
        .read_buffer_size(4096)
        .max_message_size(Some(bytes_max))
        .max_frame_size(Some(bytes_max));
    let mut context = WebSocketContext::new(Role::Server, Some(config));
    let mut peer = Peer(bytes);
    let mut payloads = Vec::new();
    while let Ok(message) = context.read(&mut peer) {
        if let Message::Binary(payload) = message {
            payloads.extend_from_slice(&payload);
        }
    }
    payloads
}

struct Peer<'p>(&'p [u8]);

impl Read for Peer<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { self.0.read(buffer) }
    }
}

impl Write for Peer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
