//! A WebSocket below MQTT, sans-io: bytes of the client in, bytes of MQTT packets out, and back.
//!
//! To MQTT a WebSocket is a stream of bytes like any other: packets and frames need not begin or end
//! together [MQTT-6.0.0-2]. So no message is ever put together here; what a frame carries is handed on as
//! it comes, and only a request, a header or a control frame that is incomplete is held.
//!
//! ```text
//!  0               1               2               3
//! +-+-+-+-+-------+-+-------------+-------------------------------+
//! |F|R|R|R| opcode|M| length      | 0, 16 or 64 bits of length, if|
//! |I|S|S|S|  (4)  |A|     (7)     | `length` is 126 or 127        |
//! |N|V|V|V|       |S|             |                               |
//! | |1|2|3|       |K|             |                               |
//! +-+-+-+-+-------+-+-------------+-------------------------------+
//! | 32 bits of mask, from a client| payload                       |
//! +-------------------------------+-------------------------------+
//! ```

#[cfg(test)]
mod soundness;
#[cfg(test)]
mod tests;
// The fuzz target takes this file in by its path, and must find the other one too.
#[path = "websocket/upgrade.rs"]
mod upgrade;

use std::io::Cursor;

use sotto_model::limits::PACKET_BYTES_MAX;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use self::upgrade::{REQUEST_BYTES_MAX, UpgradeRefusal, upgrade};

/// Longest message accepted, bytes, in however many frames: four of the largest packets.
pub(crate) const MESSAGE_BYTES_MAX: u64 = 4 * PACKET_BYTES_MAX as u64;
/// RFC 6455, 5.5
const CONTROL_BYTES_MAX: u8 = 125;
/// Header, its longest form, and mask. RFC 6455, 5.2
const HEADER_BYTES_MAX: usize = 14;

/// What a client may not do. The close code, or the answer to the request, tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    #[error("WebSocket: {0}")]
    Upgrade(#[from] UpgradeRefusal),
    #[error("WebSocket: a header that no client may send")]
    Header,
    #[error("WebSocket: a frame without mask")]
    Unmasked,
    #[error("WebSocket: a control frame in fragments, or of more than {CONTROL_BYTES_MAX} bytes")]
    Control,
    #[error("WebSocket: a fragment without its message, or a message within another")]
    Fragment,
    #[error("WebSocket: an impossible close code")]
    Close,
    #[error("WebSocket: a close reason that is not UTF-8")]
    CloseReason,
    #[error("WebSocket: a frame of text")]
    Text,
    #[error("WebSocket: a message of more than {MESSAGE_BYTES_MAX} bytes")]
    TooLong,
}

/// What receiving came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    More,
    /// The client closed; nothing more of it will be looked at.
    Closed,
}

/// One client's. Idle, it holds no memory beside itself.
pub(crate) struct WebSocket {
    stage: Stage,
    /// Received, and not to be understood without what follows: of the request at most
    /// `REQUEST_BYTES_MAX`, else at most a control frame.
    held: Vec<u8>,
    /// The frame of data whose payload is being received.
    frame: Option<DataFrame>,
    /// Bytes, of all its frames up to here, of the message being received.
    message_bytes: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Upgrading,
    Open,
    /// Nothing is received any more, and a close frame, with this code, is due.
    Closing(Option<CloseCode>),
    /// Nothing is due any more.
    Closed,
}

struct DataFrame {
    left_bytes: u64,
    /// As it applies to the next byte.
    mask: [u8; 4],
    is_final: bool,
}

impl WebSocket {
    pub(crate) fn new() -> Self {
        Self { stage: Stage::Upgrading, held: Vec::new(), frame: None, message_bytes: None }
    }

    /// Takes what the client sent. Appends what belongs to MQTT to `packets`, and to `answers` what the
    /// client is to be sent, also on failure.
    pub(crate) fn receive(
        &mut self,
        incoming: &mut Vec<u8>,
        packets: &mut Vec<u8>,
        answers: &mut Vec<u8>,
    ) -> Result<Received, Violation> {
        if !self.held.is_empty() {
            incoming.splice(..0, std::mem::take(&mut self.held));
        }
        let mut rest = &incoming[..];
        let received = self.advance(&mut rest, packets, answers);
        match received {
            Ok(Received::More) => {
                let held_bytes_max = match self.stage {
                    Stage::Upgrading => REQUEST_BYTES_MAX,
                    _ => HEADER_BYTES_MAX + usize::from(CONTROL_BYTES_MAX),
                };
                assert!(rest.len() < held_bytes_max, "what is complete is not held");
                rest.clone_into(&mut self.held);
            }
            // Answered with the code that came. RFC 6455, 5.5.1
            Ok(Received::Closed) => {}
            Err(violation) => {
                self.stage = violation.close_code().map_or(Stage::Closed, |code| Stage::Closing(Some(code)));
            }
        }
        received
    }

    /// Appends one binary frame. [MQTT-6.0.0-1]
    pub(crate) fn send(&self, packets: &[u8], frames: &mut Vec<u8>) {
        if !matches!(self.stage, Stage::Upgrading | Stage::Closed) {
            append_frame(OpCode::Data(Data::Binary), packets, frames);
        }
    }

    /// Appends the close frame, if one is due. Nothing is sent after it.
    pub(crate) fn close(&mut self, frames: &mut Vec<u8>) {
        let code = match self.stage {
            Stage::Open => Some(CloseCode::Normal),
            Stage::Closing(code) => code,
            Stage::Upgrading | Stage::Closed => {
                self.stage = Stage::Closed;
                return;
            }
        };
        self.stage = Stage::Closed;
        let payload = code.map(|code| u16::from(code).to_be_bytes());
        append_frame(OpCode::Control(Control::Close), payload.as_ref().map_or(&[], |code| &code[..]), frames);
    }

    fn advance(
        &mut self,
        rest: &mut &[u8],
        packets: &mut Vec<u8>,
        answers: &mut Vec<u8>,
    ) -> Result<Received, Violation> {
        if self.stage == Stage::Upgrading {
            let Some(len) = upgrade(rest, answers)? else { return Ok(Received::More) };
            *rest = &rest[len..];
            self.stage = Stage::Open;
        }
        while self.stage == Stage::Open {
            if let Some(frame) = &mut self.frame {
                frame.take(rest, packets);
                if frame.left_bytes > 0 {
                    return Ok(Received::More);
                }
                if frame.is_final {
                    self.message_bytes = None;
                }
                self.frame = None;
            }
            let mut cursor = Cursor::new(*rest);
            let Some((header, len)) = FrameHeader::parse(&mut cursor).map_err(|_| Violation::Header)? else {
                return Ok(Received::More);
            };
            let header_bytes = usize::try_from(cursor.position()).expect("a header is short");
            // RFC 6455, 5.1 and 5.2: no extension was agreed on.
            let mask = header.mask.ok_or(Violation::Unmasked)?;
            let is_shortest = header.len(len) == header_bytes;
            if header.rsv1 || header.rsv2 || header.rsv3 || !is_shortest {
                return Err(Violation::Header);
            }
            match header.opcode {
                OpCode::Data(kind) => {
                    self.begin_frame(kind, len)?;
                    self.frame = Some(DataFrame { left_bytes: len, mask, is_final: header.is_final });
                    *rest = &rest[header_bytes..];
                }
                OpCode::Control(kind) => {
                    if !header.is_final || len > u64::from(CONTROL_BYTES_MAX) {
                        return Err(Violation::Control);
                    }
                    let mut frame = DataFrame { left_bytes: len, mask, is_final: true };
                    let mut behind = &rest[header_bytes..];
                    let mut payload = Vec::new();
                    frame.take(&mut behind, &mut payload);
                    if frame.left_bytes > 0 {
                        return Ok(Received::More);
                    }
                    *rest = behind;
                    self.control(kind, &payload, answers)?;
                }
            }
        }
        Ok(Received::Closed)
    }

    /// Fragments of one message follow each other. RFC 6455, 5.4
    fn begin_frame(&mut self, kind: Data, len: u64) -> Result<(), Violation> {
        let before = match (kind, self.message_bytes) {
            (Data::Binary, None) => 0,
            (Data::Continue, Some(bytes)) => bytes,
            // [MQTT-6.0.0-1]
            (Data::Text, None) => return Err(Violation::Text),
            (Data::Binary | Data::Text, Some(_)) | (Data::Continue, None) => return Err(Violation::Fragment),
            (Data::Reserved(_), _) => return Err(Violation::Header),
        };
        let bytes = before.saturating_add(len);
        if bytes > MESSAGE_BYTES_MAX {
            return Err(Violation::TooLong);
        }
        self.message_bytes = Some(bytes);
        Ok(())
    }

    fn control(&mut self, kind: Control, payload: &[u8], answers: &mut Vec<u8>) -> Result<(), Violation> {
        match kind {
            Control::Ping => append_frame(OpCode::Control(Control::Pong), payload, answers),
            Control::Pong => {}
            Control::Close => self.stage = Stage::Closing(close_code(payload)?),
            Control::Reserved(_) => return Err(Violation::Header),
        }
        Ok(())
    }
}

impl DataFrame {
    /// Moves what there is of the payload from `rest` to `payload`, without its mask. RFC 6455, 5.3
    fn take(&mut self, rest: &mut &[u8], payload: &mut Vec<u8>) {
        let len = usize::try_from(self.left_bytes).unwrap_or(usize::MAX).min(rest.len());
        let start = payload.len();
        payload.extend_from_slice(&rest[..len]);
        for word in payload[start..].chunks_mut(self.mask.len()) {
            for (byte, mask) in word.iter_mut().zip(self.mask) {
                *byte ^= mask;
            }
        }
        let begun = len % self.mask.len();
        self.mask.rotate_left(begun);
        self.left_bytes -= len as u64;
        *rest = &rest[len..];
    }
}

impl Violation {
    /// RFC 6455, 7.4.1; a request that is refused has no WebSocket to close.
    fn close_code(self) -> Option<CloseCode> {
        match self {
            Self::Upgrade(_) => None,
            Self::Header | Self::Unmasked | Self::Control | Self::Fragment | Self::Close => {
                Some(CloseCode::Protocol)
            }
            Self::CloseReason => Some(CloseCode::Invalid),
            Self::Text => Some(CloseCode::Unsupported),
            Self::TooLong => Some(CloseCode::Size),
        }
    }
}

/// Empty, or a code and a reason. RFC 6455, 5.5.1
fn close_code(payload: &[u8]) -> Result<Option<CloseCode>, Violation> {
    if payload.is_empty() {
        return Ok(None);
    }
    let (code, reason) = payload.split_first_chunk().ok_or(Violation::Close)?;
    let code = CloseCode::from(u16::from_be_bytes(*code));
    if !code.is_allowed() {
        return Err(Violation::Close);
    }
    std::str::from_utf8(reason).map_err(|_| Violation::CloseReason)?;
    Ok(Some(code))
}

fn append_frame(opcode: OpCode, payload: &[u8], frames: &mut Vec<u8>) {
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    header.format(payload.len() as u64, frames).expect("a vector takes all");
    frames.extend_from_slice(payload);
}
