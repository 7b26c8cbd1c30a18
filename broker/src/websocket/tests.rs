use proptest::prelude::*;

use super::*;

/// A frame of a client, masked.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let header = FrameHeader {
        is_final: first & 0x80 != 0,
        rsv1: first & 0x40 != 0,
        rsv2: first & 0x20 != 0,
        rsv3: first & 0x10 != 0,
        opcode: OpCode::from(first & 0x0F),
        mask: Some([1, 2, 3, 4]),
    };
    header.format(payload.len() as u64, &mut bytes).expect("a vector takes all");
    bytes.extend(payload.iter().zip([1, 2, 3, 4].into_iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

fn open() -> WebSocket {
    WebSocket { stage: Stage::Open, ..WebSocket::new() }
}

/// What became of it, the packets, the answers, and the close frame.
type Outcome = (Result<Received, Violation>, Vec<u8>, Vec<u8>, Vec<u8>);

fn receive(chunks: &[&[u8]]) -> Outcome {
    let mut websocket = open();
    let (mut packets, mut answers, mut close) = (Vec::new(), Vec::new(), Vec::new());
    let mut outcome = Ok(Received::More);
    for chunk in chunks {
        outcome = websocket.receive(&mut chunk.to_vec(), &mut packets, &mut answers);
        if outcome != Ok(Received::More) {
            break;
        }
    }
    websocket.close(&mut close);
    (outcome, packets, answers, close)
}

#[test]
fn many_packets_in_a_frame_and_a_packet_in_many_frames_are_one_stream() {
    let bytes = [
        frame(0x82, b"one two "),
        frame(0x02, b"th"),
        frame(0x89, b"are you there"),
        frame(0x00, b""),
        frame(0x80, b"ree"),
        frame(0x8A, b"unasked"),
        frame(0x82, b" four"),
    ]
    .concat();
    let (outcome, packets, answers, close) = receive(&[&bytes]);
    assert_eq!(outcome, Ok(Received::More));
    assert_eq!(packets, b"one two three four");
    assert_eq!(answers, [&[0x8A, 13][..], b"are you there"].concat());
    assert_eq!(close, [0x88, 2, 0x03, 0xE8], "1000");
}

#[test]
fn what_no_client_may_send_is_told_by_the_close_code() {
    let huge = [&[0x82, 0xFF][..], &(MESSAGE_BYTES_MAX + 1).to_be_bytes(), &[0; 4]].concat();
    let largest = frame(0x02, &vec![0; usize::try_from(MESSAGE_BYTES_MAX).expect("small")]);
    for (bytes, violation, code) in [
        (vec![0x82, 0x01, b'a'], Violation::Unmasked, 1002),
        (frame(0xC2, b"a"), Violation::Header, 1002),
        (frame(0x92, b"a"), Violation::Header, 1002),
        (frame(0x83, b"a"), Violation::Header, 1002),
        (frame(0x8B, b"a"), Violation::Header, 1002),
        // A length of one byte, in two.
        (vec![0x82, 0xFE, 0, 1, 0, 0, 0, 0, b'a'], Violation::Header, 1002),
        (frame(0x09, b"a"), Violation::Control, 1002),
        (frame(0x89, &[0; 126]), Violation::Control, 1002),
        (frame(0x80, b"a"), Violation::Fragment, 1002),
        ([frame(0x02, b"a"), frame(0x82, b"b")].concat(), Violation::Fragment, 1002),
        ([frame(0x02, b"a"), frame(0x81, b"b")].concat(), Violation::Fragment, 1002),
        (frame(0x81, b"text"), Violation::Text, 1003),
        (huge, Violation::TooLong, 1009),
        ([largest, frame(0x80, b"a")].concat(), Violation::TooLong, 1009),
        (frame(0x88, &[0x03]), Violation::Close, 1002),
        (frame(0x88, &1005_u16.to_be_bytes()), Violation::Close, 1002),
        (frame(0x88, &999_u16.to_be_bytes()), Violation::Close, 1002),
        (frame(0x88, &[0x03, 0xE8, 0xFF]), Violation::CloseReason, 1007),
    ] {
        let (outcome, _, answers, close) = receive(&[&bytes]);
        let head = &bytes[..bytes.len().min(16)];
        assert_eq!(outcome, Err(violation), "{head:02x?}");
        assert!(answers.is_empty());
        assert_eq!(close, [&[0x88, 2][..], &u16::to_be_bytes(code)].concat(), "{head:02x?}");
    }
}

#[test]
fn a_close_is_answered_with_its_own_code_and_ends_what_is_heard() {
    for (payload, answer) in [
        (&b""[..], &[0x88, 0][..]),
        (&[0x03, 0xE8], &[0x88, 2, 0x03, 0xE8]),
        (&[0x03, 0xE9, b'b', b'y', b'e'], &[0x88, 2, 0x03, 0xE9]),
        (&[0x0F, 0xA0], &[0x88, 2, 0x0F, 0xA0]),
    ] {
        let bytes = [frame(0x82, b"heard"), frame(0x88, payload), frame(0x82, b"unheard")].concat();
        let (outcome, packets, answers, close) = receive(&[&bytes]);
        assert_eq!((outcome, &packets[..]), (Ok(Received::Closed), &b"heard"[..]));
        assert!(answers.is_empty());
        assert_eq!(close, answer);
    }
}

#[test]
fn nothing_follows_the_close_frame() {
    let mut websocket = open();
    let mut frames = Vec::new();
    websocket.close(&mut frames);
    websocket.send(b"late", &mut frames);
    websocket.close(&mut frames);
    assert_eq!(frames, [0x88, 2, 0x03, 0xE8]);
}

#[test]
fn a_write_is_one_binary_frame_without_mask() {
    for len in [0, 1, 125, 126, 65_535, 65_536] {
        let mut frames = Vec::new();
        open().send(&vec![b'x'; len], &mut frames);
        let mut cursor = Cursor::new(&frames[..]);
        let (header, payload_bytes) = FrameHeader::parse(&mut cursor).expect("valid").expect("complete");
        assert_eq!(header, FrameHeader { opcode: OpCode::Data(Data::Binary), ..FrameHeader::default() });
        assert_eq!(payload_bytes, len as u64);
        assert_eq!(frames.len(), header.len(payload_bytes) + len);
    }
}

#[test]
fn an_idle_websocket_holds_nothing() {
    let mut websocket = open();
    let mut packets = Vec::new();
    let bytes = [frame(0x82, &[0; 5000]), frame(0x89, b"ping")].concat();
    for chunk in bytes.chunks(3) {
        websocket.receive(&mut chunk.to_vec(), &mut packets, &mut Vec::new()).expect("valid");
    }
    assert_eq!((packets.len(), websocket.held.capacity()), (5000, 0));
    assert!(size_of::<WebSocket>() <= 64, "{}", size_of::<WebSocket>());
}

proptest! {
    #[test]
    fn frames_mean_the_same_however_they_are_cut(
        frames in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..300)), 0..8),
        cuts in prop::collection::vec(1_usize..40, 1..20),
    ) {
        let bytes: Vec<u8> = frames.iter().flat_map(|(first, payload)| frame(*first, payload)).collect();
        let mut cuts = cuts.iter().cycle();
        let mut chunks = Vec::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let cut = (*cuts.next().expect("a cycle")).min(rest.len());
            chunks.push(&rest[..cut]);
            rest = &rest[cut..];
        }
        prop_assert_eq!(receive(&chunks), receive(&[&bytes]));
    }
}

proptest! {
    #[test]
    fn any_bytes_are_sound(input in prop::collection::vec(any::<u8>(), 0..200)) {
        soundness::check_input(&input);
    }
}

#[test]
fn the_fuzzers_corpus_is_sound() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/websocket");
    let mut inputs = 0;
    for entry in std::fs::read_dir(corpus).expect("the corpus") {
        let input = std::fs::read(entry.expect("an entry").path()).expect("an input");
        soundness::check_input(&input);
        inputs += 1;
    }
    assert!(inputs >= 20, "{inputs} inputs");
}
