//! Packets at the edge of what the specifications allow, each with what they say of it.

use sotto_mqtt::codec::encode::write_remaining_length;
use sotto_mqtt::packet::Version::{self, V3, V5};
use sotto_mqtt::reason::ReasonCode;

pub(crate) struct EdgeCase {
    pub(crate) name: &'static str,
    pub(crate) version: Version,
    pub(crate) bytes: Vec<u8>,
    pub(crate) verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Verdict {
    Taken,
    Refused(ReasonCode),
}

const OK: Verdict = Verdict::Taken;
const MALFORMED: Verdict = Verdict::Refused(ReasonCode::MalformedPacket);
const PROTOCOL: Verdict = Verdict::Refused(ReasonCode::ProtocolError);
const VERSION: Verdict = Verdict::Refused(ReasonCode::UnsupportedProtocolVersion);

pub(crate) fn edge_cases() -> impl Iterator<Item = EdgeCase> {
    let whole = WHOLE.iter().map(|&(name, version, bytes, verdict)| EdgeCase {
        name,
        version,
        bytes: bytes.to_vec(),
        verdict,
    });
    let bodies = BODIES.iter().flat_map(|list| list.iter()).map(|&(name, version, first, body, verdict)| {
        let mut bytes = vec![first];
        write_remaining_length(u32::try_from(body.len()).expect("short"), &mut bytes);
        bytes.extend(body);
        EdgeCase { name, version, bytes, verdict }
    });
    whole.chain(bodies)
}

type Whole = (&'static str, Version, &'static [u8], Verdict);

/// First byte and body; the Remaining Length is put between them.
type Body = (&'static str, Version, u8, &'static [u8], Verdict);

const BODIES: &[&[Body]] =
    &[CONNECT, CONNACK, PUBLISH, ACKNOWLEDGEMENTS, SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, OTHERS];

const WHOLE: &[Whole] = &[
    ("type 0", V3, b"\x00\x00", MALFORMED),
    ("type 0", V5, b"\x00\x00", MALFORMED),
    ("type 15 in 3.1.1", V3, b"\xf0\x00", MALFORMED),
    ("CONNECT with a flag", V5, b"\x11\x0e\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x01c", MALFORMED),
    ("CONNACK with a flag", V5, b"\x21\x03\x00\x00\x00", MALFORMED),
    ("PUBACK with a flag", V3, b"\x48\x02\x00\x01", MALFORMED),
    ("PUBREC with a flag", V5, b"\x52\x02\x00\x01", MALFORMED),
    ("PUBREL without its flag", V3, b"\x60\x02\x00\x01", MALFORMED),
    ("PUBCOMP with a flag", V5, b"\x71\x02\x00\x01", MALFORMED),
    ("SUBSCRIBE without its flag", V3, b"\x80\x06\x00\x01\x00\x01a\x00", MALFORMED),
    ("SUBACK with a flag", V3, b"\x92\x03\x00\x01\x00", MALFORMED),
    ("UNSUBSCRIBE with another flag", V3, b"\xa6\x05\x00\x01\x00\x01a", MALFORMED),
    ("UNSUBACK with a flag", V3, b"\xb2\x02\x00\x01", MALFORMED),
    ("PINGREQ with a flag", V3, b"\xc1\x00", MALFORMED),
    ("PINGRESP with a flag", V5, b"\xd8\x00", MALFORMED),
    ("DISCONNECT with a flag", V3, b"\xe1\x00", MALFORMED),
    ("AUTH with a flag", V5, b"\xf4\x00", MALFORMED),
    ("Remaining Length of two bytes for 0", V3, b"\xc0\x80\x00", MALFORMED),
    ("Remaining Length of two bytes for 2", V5, b"\x40\x82\x00\x00\x01", MALFORMED),
    ("Remaining Length of five bytes", V5, b"\xc0\x80\x80\x80\x80\x00", MALFORMED),
    ("Remaining Length of two bytes for 128", V3, &LONG_PUBLISH, OK),
];

/// A PUBLISH of QoS 0 with 128 bytes behind its fixed header.
const LONG_PUBLISH: [u8; 131] = {
    let mut bytes = [b'x'; 131];
    let head = *b"\x30\x80\x01\x00\x01a";
    let mut at = 0;
    while at < head.len() {
        bytes[at] = head[at];
        at += 1;
    }
    bytes
};

const CONNECT: &[Body] = &[
    ("CONNECT, shortest", V3, 0x10, b"\x00\x04MQTT\x04\x02\x00\x00\x00\x00", OK),
    ("CONNECT, shortest", V5, 0x10, b"\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x00", OK),
    ("everything", V3, 0x10, b"\x00\x04MQTT\x04\xee\x00\x3c\x00\x01c\x00\x01w\x00\x01m\x00\x01u\x00\x01p", OK),
    ("no client id, no Clean Start", V5, 0x10, b"\x00\x04MQTT\x05\x00\x00\x00\x00\x00\x00", OK),
    ("no client id, no Clean Session", V3, 0x10, b"\x00\x04MQTT\x04\x00\x00\x00\x00\x00", OK),
    ("empty user name and password", V3, 0x10, b"\x00\x04MQTT\x04\xc2\x00\x00\x00\x01c\x00\x00\x00\x00", OK),
    ("password without user name", V5, 0x10, b"\x00\x04MQTT\x05\x42\x00\x00\x00\x00\x01c\x00\x01p", OK),
    ("password without user name", V3, 0x10, b"\x00\x04MQTT\x04\x42\x00\x00\x00\x01c\x00\x01p", MALFORMED),
    ("MQIsdp, level 3", V3, 0x10, b"\x00\x06MQIsdp\x03\x02\x00\x00\x00\x01c", VERSION),
    ("MQTT, level 3", V3, 0x10, b"\x00\x04MQTT\x03\x02\x00\x00\x00\x01c", VERSION),
    ("MQTT, level 6", V5, 0x10, b"\x00\x04MQTT\x06\x02\x00\x00\x00\x00\x01c", VERSION),
    ("bridge bit in the level", V3, 0x10, b"\x00\x04MQTT\x84\x02\x00\x00\x00\x01c", VERSION),
    ("mqtt in small letters", V3, 0x10, b"\x00\x04mqtt\x04\x02\x00\x00\x00\x01c", VERSION),
    ("Protocol Name longer than the packet", V3, 0x10, b"\x00\x40MQTT\x04\x02\x00\x00\x00\x01c", MALFORMED),
    ("reserved flag", V3, 0x10, b"\x00\x04MQTT\x04\x03\x00\x00\x00\x01c", MALFORMED),
    ("reserved flag", V5, 0x10, b"\x00\x04MQTT\x05\x03\x00\x00\x00\x00\x01c", MALFORMED),
    ("Will QoS without a will", V3, 0x10, b"\x00\x04MQTT\x04\x0a\x00\x00\x00\x01c", MALFORMED),
    ("Will Retain without a will", V5, 0x10, b"\x00\x04MQTT\x05\x22\x00\x00\x00\x00\x01c", MALFORMED),
    ("Will QoS 3", V3, 0x10, b"\x00\x04MQTT\x04\x1e\x00\x00\x00\x01c\x00\x01w\x00\x00", MALFORMED),
    ("Will QoS 3", V5, 0x10, b"\x00\x04MQTT\x05\x1e\x00\x00\x00\x00\x01c\x00\x00\x01w\x00\x00", MALFORMED),
    ("Will Topic empty", V3, 0x10, b"\x00\x04MQTT\x04\x06\x00\x00\x00\x01c\x00\x00\x00\x00", MALFORMED),
    ("Will Topic empty", V5, 0x10, b"\x00\x04MQTT\x05\x06\x00\x00\x00\x00\x01c\x00\x00\x00\x00\x00", MALFORMED),
    ("wildcard in a Will Topic", V3, 0x10, b"\x00\x04MQTT\x04\x06\x00\x00\x00\x01c\x00\x01+\x00\x00", MALFORMED),
    ("wildcard in a Will Topic", V5, 0x10, b"\x00\x04MQTT\x05\x06\x00\x00\x00\x00\x01c\x00\x00\x01#\x00\x00", MALFORMED),
    ("will without its message", V3, 0x10, b"\x00\x04MQTT\x04\x06\x00\x00\x00\x01c\x00\x01w", MALFORMED),
    ("user name missing", V3, 0x10, b"\x00\x04MQTT\x04\x82\x00\x00\x00\x01c", MALFORMED),
    ("password missing", V3, 0x10, b"\x00\x04MQTT\x04\xc2\x00\x00\x00\x01c\x00\x01u", MALFORMED),
    ("a byte behind the client id", V3, 0x10, b"\x00\x04MQTT\x04\x02\x00\x00\x00\x01cx", MALFORMED),
    ("a byte behind the client id", V5, 0x10, b"\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x01cx", MALFORMED),
    ("cut behind the flags", V3, 0x10, b"\x00\x04MQTT\x04\x02", MALFORMED),
    ("U+0000 in a client id", V3, 0x10, b"\x00\x04MQTT\x04\x02\x00\x00\x00\x01\x00", MALFORMED),
    ("control character in a client id", V3, 0x10, b"\x00\x04MQTT\x04\x02\x00\x00\x00\x01\x0a", MALFORMED),
    ("control character in a user name", V5, 0x10, b"\x00\x04MQTT\x05\x82\x00\x00\x00\x00\x01c\x00\x01\x7f", MALFORMED),
    ("surrogate in a client id", V5, 0x10, b"\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x03\xed\xa0\x80", MALFORMED),
    ("Session Expiry Interval 0", V5, 0x10, b"\x00\x04MQTT\x05\x02\x00\x00\x05\x11\x00\x00\x00\x00\x00\x01c", OK),
    ("Session Expiry Interval twice", V5, 0x10, b"\x00\x04MQTT\x05\x02\x00\x00\x0a\x11\x00\x00\x00\x01\x11\x00\x00\x00\x01\x00\x01c", PROTOCOL),
    ("Receive Maximum 0", V5, 0x10, b"\x00\x04MQTT\x05\x02\x00\x00\x03\x21\x00\x00\x00\x01c", PROTOCOL),
    ("Receive Maximum 65,535", V5, 0x10, b"\x00\x04MQTT\x05\x02\x00\x00\x03\x21\xff\xff\x00\x01c", OK),
    ("Maximum Packet Size 0", V5, 0x10, b"\x00\x04MQTT\x05\x02\x00\x00\x05\x27\x00\x00\x00\x00\x00\x01c", PROTOCOL),
    ("Topic Alias Maximum 0", V5, 0x10, b"\x00\x04MQTT\x05\x02\x00\x00\x03\x22\x00\x00\x00\x01c", OK),
    ("Request Response Information 2", V5, 0x10, b"\x00\x04MQTT\x05\x02\x00\x00\x02\x19\x02\x00\x01c", PROTOCOL),
    ("Request Problem Information 2", V5, 0x10, b"\x00\x04MQTT\x05\x02\x00\x00\x02\x17\x02\x00\x01c", PROTOCOL),
    ("Request Problem Information 1", V5, 0x10, b"\x00\x04MQTT\x05\x02\x00\x00\x02\x17\x01\x00\x01c", OK),
    ("Authentication Method", V5, 0x10, b"\x00\x04MQTT\x05\x02\x00\x00\x08\x15\x00\x01m\x16\x00\x01d\x00\x01c", OK),
    ("Authentication Data alone", V5, 0x10, b"\x00\x04MQTT\x05\x02\x00\x00\x04\x16\x00\x01d\x00\x01c", PROTOCOL),
    ("Topic Alias in a CONNECT", V5, 0x10, b"\x00\x04MQTT\x05\x02\x00\x00\x03\x23\x00\x01\x00\x01c", PROTOCOL),
    ("Will Delay Interval outside the will", V5, 0x10, b"\x00\x04MQTT\x05\x02\x00\x00\x05\x18\x00\x00\x00\x01\x00\x01c", PROTOCOL),
    ("Will Delay Interval", V5, 0x10, b"\x00\x04MQTT\x05\x06\x00\x00\x00\x00\x01c\x05\x18\x00\x00\x00\x01\x00\x01w\x00\x00", OK),
    ("Will Delay Interval twice", V5, 0x10, b"\x00\x04MQTT\x05\x06\x00\x00\x00\x00\x01c\x0a\x18\x00\x00\x00\x01\x18\x00\x00\x00\x01\x00\x01w\x00\x00", PROTOCOL),
    ("Message Expiry Interval 0 of a will", V5, 0x10, b"\x00\x04MQTT\x05\x06\x00\x00\x00\x00\x01c\x05\x02\x00\x00\x00\x00\x00\x01w\x00\x00", OK),
    ("Session Expiry Interval in the will", V5, 0x10, b"\x00\x04MQTT\x05\x06\x00\x00\x00\x00\x01c\x05\x11\x00\x00\x00\x01\x00\x01w\x00\x00", PROTOCOL),
    ("Response Topic of a will with a wildcard", V5, 0x10, b"\x00\x04MQTT\x05\x06\x00\x00\x00\x00\x01c\x04\x08\x00\x01#\x00\x01w\x00\x00", PROTOCOL),
    ("User Property twice", V5, 0x10, b"\x00\x04MQTT\x05\x02\x00\x00\x0e\x26\x00\x01k\x00\x01v\x26\x00\x01k\x00\x01v\x00\x01c", OK),
    ("properties longer than the packet", V5, 0x10, b"\x00\x04MQTT\x05\x02\x00\x00\x7f\x21\x00\x01\x00\x01c", MALFORMED),
    ("no Property Length", V5, 0x10, b"\x00\x04MQTT\x05\x02\x00\x00", MALFORMED),
];

const CONNACK: &[Body] = &[
    ("CONNACK, shortest", V3, 0x20, b"\x00\x00", OK),
    ("CONNACK, shortest", V5, 0x20, b"\x00\x00\x00", OK),
    ("Session Present", V3, 0x20, b"\x01\x00", OK),
    ("reserved flag", V3, 0x20, b"\x02\x00", MALFORMED),
    ("reserved flag", V5, 0x20, b"\x80\x00\x00", MALFORMED),
    ("Session Present on a refusal", V3, 0x20, b"\x01\x05", PROTOCOL),
    ("Session Present on a refusal", V5, 0x20, b"\x01\x87\x00", PROTOCOL),
    ("return code 6", V3, 0x20, b"\x00\x06", MALFORMED),
    ("Reason Code of a DISCONNECT", V5, 0x20, b"\x00\x8e\x00", PROTOCOL),
    ("Reason Code that is not defined", V5, 0x20, b"\x00\x77\x00", PROTOCOL),
    ("a byte behind the return code", V3, 0x20, b"\x00\x00x", MALFORMED),
    ("a byte behind the properties", V5, 0x20, b"\x00\x00\x00x", MALFORMED),
    ("no Property Length", V5, 0x20, b"\x00\x00", MALFORMED),
    ("Maximum QoS 1", V5, 0x20, b"\x00\x00\x02\x24\x01", OK),
    ("Maximum QoS 2", V5, 0x20, b"\x00\x00\x02\x24\x02", PROTOCOL),
    ("Maximum QoS 3", V5, 0x20, b"\x00\x00\x02\x24\x03", PROTOCOL),
    ("Retain Available 2", V5, 0x20, b"\x00\x00\x02\x25\x02", PROTOCOL),
    ("Retain Available 1", V5, 0x20, b"\x00\x00\x02\x25\x01", OK),
    ("Shared Subscription Available twice", V5, 0x20, b"\x00\x00\x04\x2a\x01\x2a\x01", PROTOCOL),
    ("Receive Maximum 0", V5, 0x20, b"\x00\x00\x03\x21\x00\x00", PROTOCOL),
    ("Topic Alias in a CONNACK", V5, 0x20, b"\x00\x00\x03\x23\x00\x01", PROTOCOL),
    ("U+0000 in a Reason String", V5, 0x20, b"\x00\x00\x04\x1f\x00\x01\x00", MALFORMED),
];

const PUBLISH: &[Body] = &[
    ("PUBLISH, shortest", V3, 0x30, b"\x00\x01a", OK),
    ("PUBLISH, shortest", V5, 0x30, b"\x00\x01a\x00", OK),
    ("QoS 1, Packet Identifier 65,535", V3, 0x32, b"\x00\x01a\xff\xff", OK),
    ("QoS 2, DUP, RETAIN", V5, 0x3d, b"\x00\x01a\x00\x01\x00x", OK),
    ("QoS 3", V3, 0x36, b"\x00\x01a\x00\x01", MALFORMED),
    ("QoS 3", V5, 0x36, b"\x00\x01a\x00\x01\x00", MALFORMED),
    ("DUP on QoS 0", V3, 0x38, b"\x00\x01a", MALFORMED),
    ("DUP on QoS 0", V5, 0x38, b"\x00\x01a\x00", MALFORMED),
    ("Packet Identifier 0", V3, 0x32, b"\x00\x01a\x00\x00", PROTOCOL),
    ("Packet Identifier 0", V5, 0x34, b"\x00\x01a\x00\x00\x00", PROTOCOL),
    ("no Packet Identifier", V3, 0x32, b"\x00\x01a", MALFORMED),
    ("half a Packet Identifier", V3, 0x34, b"\x00\x01a\x00", MALFORMED),
    ("Topic Name empty", V3, 0x30, b"\x00\x00x", MALFORMED),
    ("Topic Name empty, no Topic Alias", V5, 0x30, b"\x00\x00\x00x", PROTOCOL),
    ("Topic Name empty, Topic Alias", V5, 0x30, b"\x00\x00\x03\x23\x00\x01x", OK),
    ("Topic Alias 0", V5, 0x30, b"\x00\x01a\x03\x23\x00\x00x", OK),
    ("Topic Alias twice", V5, 0x30, b"\x00\x01a\x06\x23\x00\x01\x23\x00\x01x", PROTOCOL),
    ("+ in a Topic Name", V3, 0x30, b"\x00\x03a/+", MALFORMED),
    ("# in a Topic Name", V5, 0x30, b"\x00\x03a/#\x00", MALFORMED),
    ("Topic Name longer than the packet", V3, 0x30, b"\x00\x05a", MALFORMED),
    ("half a length", V3, 0x30, b"\x00", MALFORMED),
    ("nothing", V3, 0x30, b"", MALFORMED),
    ("no Property Length", V5, 0x30, b"\x00\x01a", MALFORMED),
    ("Property Length of two bytes for 0", V5, 0x30, b"\x00\x01a\x80\x00", MALFORMED),
    ("Property Length of five bytes", V5, 0x30, b"\x00\x01a\x80\x80\x80\x80\x01", MALFORMED),
    ("properties longer than the packet", V5, 0x30, b"\x00\x01a\x05\x23\x00", MALFORMED),
    ("a property across the end of the list", V5, 0x30, b"\x00\x01a\x03\x03\x00\x02xyz", MALFORMED),
    ("U+0000 in a Topic Name", V3, 0x30, b"\x00\x01\x00", MALFORMED),
    ("U+0000 in a Topic Name", V5, 0x30, b"\x00\x03a\x00b\x00", MALFORMED),
    ("surrogate in a Topic Name", V3, 0x30, b"\x00\x03\xed\xa0\x80", MALFORMED),
    ("overlong slash in a Topic Name", V5, 0x30, b"\x00\x02\xc0\xaf\x00", MALFORMED),
    ("U+110000 in a Topic Name", V3, 0x30, b"\x00\x04\xf4\x90\x80\x80", MALFORMED),
    ("cut sequence in a Topic Name", V3, 0x30, b"\x00\x01\xc3\xbc", MALFORMED),
    ("U+0001 in a Topic Name", V3, 0x30, b"\x00\x01\x01", MALFORMED),
    ("U+009F in a Topic Name", V5, 0x30, b"\x00\x02\xc2\x9f\x00", MALFORMED),
    ("U+FFFF in a Topic Name", V5, 0x30, b"\x00\x03\xef\xbf\xbf\x00", MALFORMED),
    ("U+FDD0 in a Topic Name", V3, 0x30, b"\x00\x03\xef\xb7\x90", MALFORMED),
    ("byte order mark in a Topic Name", V3, 0x30, b"\x00\x04\xef\xbb\xbfa", OK),
    ("U+2A6D4 in a Topic Name", V5, 0x30, b"\x00\x05A\xf0\xaa\x9b\x94\x00", OK),
    ("Payload Format Indicator 0", V5, 0x30, b"\x00\x01a\x02\x01\x00", OK),
    ("Payload Format Indicator 2", V5, 0x30, b"\x00\x01a\x02\x01\x02", PROTOCOL),
    ("Payload Format Indicator twice", V5, 0x30, b"\x00\x01a\x04\x01\x01\x01\x01", PROTOCOL),
    ("Message Expiry Interval 0", V5, 0x30, b"\x00\x01a\x05\x02\x00\x00\x00\x00", OK),
    ("Message Expiry Interval cut", V5, 0x30, b"\x00\x01a\x04\x02\x00\x00\x00", MALFORMED),
    ("Response Topic with a wildcard", V5, 0x30, b"\x00\x01a\x04\x08\x00\x01#", PROTOCOL),
    ("Response Topic empty", V5, 0x30, b"\x00\x01a\x03\x08\x00\x00", PROTOCOL),
    ("Correlation Data empty", V5, 0x30, b"\x00\x01a\x03\x09\x00\x00", OK),
    ("Subscription Identifier 0", V5, 0x30, b"\x00\x01a\x02\x0b\x00", PROTOCOL),
    ("Subscription Identifiers, the same twice", V5, 0x30, b"\x00\x01a\x04\x0b\x01\x0b\x01", OK),
    ("Subscription Identifier 268,435,455", V5, 0x30, b"\x00\x01a\x05\x0b\xff\xff\xff\x7f", OK),
    ("Subscription Identifier of two bytes for 1", V5, 0x30, b"\x00\x01a\x03\x0b\x81\x00", MALFORMED),
    ("Content Type empty", V5, 0x30, b"\x00\x01a\x03\x03\x00\x00", OK),
    ("a line break in a User Property", V5, 0x30, b"\x00\x01a\x07\x26\x00\x01k\x00\x01\x0a", OK),
    ("U+0000 in a User Property", V5, 0x30, b"\x00\x01a\x07\x26\x00\x01k\x00\x01\x00", MALFORMED),
    ("User Property without its value", V5, 0x30, b"\x00\x01a\x04\x26\x00\x01k", MALFORMED),
    ("Reason String in a PUBLISH", V5, 0x30, b"\x00\x01a\x04\x1f\x00\x01r", PROTOCOL),
    ("a property that is not defined", V5, 0x30, b"\x00\x01a\x02\x04\x00", MALFORMED),
    ("property identifier of two bytes", V5, 0x30, b"\x00\x01a\x03\x81\x00\x01", MALFORMED),
];

const ACKNOWLEDGEMENTS: &[Body] = &[
    ("PUBACK", V3, 0x40, b"\x00\x01", OK),
    ("PUBREL", V3, 0x62, b"\xff\xff", OK),
    ("PUBACK with a byte too many", V3, 0x40, b"\x00\x01\x00", MALFORMED),
    ("PUBREC with a byte too many", V3, 0x50, b"\x00\x01\x00", MALFORMED),
    ("PUBREL with a byte too many", V3, 0x62, b"\x00\x01\x00", MALFORMED),
    ("PUBCOMP with a byte too many", V3, 0x70, b"\x00\x01\x00", MALFORMED),
    ("PUBACK with half an identifier", V3, 0x40, b"\x00", MALFORMED),
    ("PUBACK with nothing", V5, 0x40, b"", MALFORMED),
    ("Packet Identifier 0", V3, 0x40, b"\x00\x00", PROTOCOL),
    ("Packet Identifier 0", V5, 0x50, b"\x00\x00", PROTOCOL),
    ("Packet Identifier 0", V5, 0x62, b"\x00\x00\x00", PROTOCOL),
    ("Packet Identifier 0", V5, 0x70, b"\x00\x00", PROTOCOL),
    ("no Reason Code", V5, 0x40, b"\x00\x01", OK),
    ("Reason Code, no properties", V5, 0x50, b"\x00\x01\x10", OK),
    ("Reason Code, empty properties", V5, 0x62, b"\x00\x01\x92\x00", OK),
    ("Success with a Reason String", V5, 0x70, b"\x00\x01\x00\x04\x1f\x00\x01r", OK),
    ("Reason Code of a SUBACK", V5, 0x40, b"\x00\x01\x01", PROTOCOL),
    ("Reason Code of a PUBREC", V5, 0x62, b"\x00\x01\x87", PROTOCOL),
    ("Reason Code that is not defined", V5, 0x70, b"\x00\x01\xff", PROTOCOL),
    ("Reason String twice", V5, 0x40, b"\x00\x01\x00\x08\x1f\x00\x01r\x1f\x00\x01r", PROTOCOL),
    ("Server Reference in a PUBACK", V5, 0x40, b"\x00\x01\x00\x04\x1c\x00\x01r", PROTOCOL),
    ("a byte behind the properties", V5, 0x40, b"\x00\x01\x00\x00x", MALFORMED),
    ("properties longer than the packet", V5, 0x50, b"\x00\x01\x00\x05\x1f", MALFORMED),
    ("U+0000 in a Reason String", V5, 0x50, b"\x00\x01\x00\x04\x1f\x00\x01\x00", MALFORMED),
];

const SUBSCRIBE: &[Body] = &[
    ("SUBSCRIBE", V3, 0x82, b"\x00\x01\x00\x01a\x02", OK),
    ("SUBSCRIBE", V5, 0x82, b"\x00\x01\x00\x00\x01a\x2e", OK),
    ("no filter", V3, 0x82, b"\x00\x01", PROTOCOL),
    ("no filter", V5, 0x82, b"\x00\x01\x00", PROTOCOL),
    ("Packet Identifier 0", V3, 0x82, b"\x00\x00\x00\x01a\x00", PROTOCOL),
    ("Packet Identifier 0", V5, 0x82, b"\x00\x00\x00\x00\x01a\x00", PROTOCOL),
    ("no options", V3, 0x82, b"\x00\x01\x00\x01a", MALFORMED),
    ("filter longer than the packet", V5, 0x82, b"\x00\x01\x00\x00\x09a\x00", MALFORMED),
    ("filter empty", V3, 0x82, b"\x00\x01\x00\x00\x00", MALFORMED),
    ("filter empty", V5, 0x82, b"\x00\x01\x00\x00\x00\x00", MALFORMED),
    ("QoS 3", V3, 0x82, b"\x00\x01\x00\x01a\x03", MALFORMED),
    ("QoS 3", V5, 0x82, b"\x00\x01\x00\x00\x01a\x03", PROTOCOL),
    ("reserved bit 2", V3, 0x82, b"\x00\x01\x00\x01a\x04", MALFORMED),
    ("reserved bit 7", V3, 0x82, b"\x00\x01\x00\x01a\x80", MALFORMED),
    ("reserved bit 6", V5, 0x82, b"\x00\x01\x00\x00\x01a\x40", MALFORMED),
    ("reserved bit 7", V5, 0x82, b"\x00\x01\x00\x00\x01a\x80", MALFORMED),
    ("Retain Handling 3", V5, 0x82, b"\x00\x01\x00\x00\x01a\x30", PROTOCOL),
    ("# before the end", V3, 0x82, b"\x00\x01\x00\x03#/a\x00", MALFORMED),
    ("# in a level", V5, 0x82, b"\x00\x01\x00\x00\x02a#\x00", MALFORMED),
    ("+ in a level", V3, 0x82, b"\x00\x01\x00\x02a+\x00", MALFORMED),
    ("+ in a level", V5, 0x82, b"\x00\x01\x00\x00\x04+a/b\x00", MALFORMED),
    ("all wildcards", V3, 0x82, b"\x00\x01\x00\x05+/+/#\x00", OK),
    ("empty levels", V5, 0x82, b"\x00\x01\x00\x00\x02//\x00", OK),
    ("shared", V5, 0x82, b"\x00\x01\x00\x00\x0a$share/g/a\x01", OK),
    ("shared, No Local", V5, 0x82, b"\x00\x01\x00\x00\x0a$share/g/a\x05", PROTOCOL),
    ("shared, ShareName empty", V5, 0x82, b"\x00\x01\x00\x00\x09$share//a\x00", MALFORMED),
    ("shared, wildcard in the ShareName", V5, 0x82, b"\x00\x01\x00\x00\x0a$share/+/a\x00", MALFORMED),
    ("shared, no filter", V5, 0x82, b"\x00\x01\x00\x00\x08$share/g\x00", MALFORMED),
    ("shared, filter empty", V5, 0x82, b"\x00\x01\x00\x00\x09$share/g/\x00", MALFORMED),
    ("$share/ in 3.1.1", V3, 0x82, b"\x00\x01\x00\x09$share//a\x00", OK),
    ("U+0000 in a filter", V3, 0x82, b"\x00\x01\x00\x01\x00\x00", MALFORMED),
    ("U+001F in a filter", V5, 0x82, b"\x00\x01\x00\x00\x01\x1f\x00", MALFORMED),
    ("surrogate in a filter", V5, 0x82, b"\x00\x01\x00\x00\x03\xed\xbf\xbf\x00", MALFORMED),
    ("Subscription Identifier 1", V5, 0x82, b"\x00\x01\x02\x0b\x01\x00\x01a\x00", OK),
    ("Subscription Identifier 0", V5, 0x82, b"\x00\x01\x02\x0b\x00\x00\x01a\x00", PROTOCOL),
    ("Subscription Identifier twice", V5, 0x82, b"\x00\x01\x04\x0b\x01\x0b\x01\x00\x01a\x00", PROTOCOL),
    (
        "Subscription Identifier of five bytes",
        V5,
        0x82,
        b"\x00\x01\x06\x0b\x80\x80\x80\x80\x01\x00\x01a\x00",
        MALFORMED,
    ),
    ("Topic Alias in a SUBSCRIBE", V5, 0x82, b"\x00\x01\x03\x23\x00\x01\x00\x01a\x00", PROTOCOL),
    ("a second filter cut", V3, 0x82, b"\x00\x01\x00\x01a\x00\x00", MALFORMED),
];

const SUBACK: &[Body] = &[
    ("SUBACK", V3, 0x90, b"\x00\x01\x00\x01\x02\x80", OK),
    ("SUBACK", V5, 0x90, b"\x00\x01\x00\x00\xa2", OK),
    ("no return code", V3, 0x90, b"\x00\x01", MALFORMED),
    ("no Reason Code", V5, 0x90, b"\x00\x01\x00", MALFORMED),
    ("return code 3", V3, 0x90, b"\x00\x01\x03", MALFORMED),
    ("Reason Code 3", V5, 0x90, b"\x00\x01\x00\x03", PROTOCOL),
    ("Packet Identifier 0", V5, 0x90, b"\x00\x00\x00\x00", PROTOCOL),
    ("Topic Alias in a SUBACK", V5, 0x90, b"\x00\x01\x03\x23\x00\x01\x00", PROTOCOL),
];

const UNSUBSCRIBE: &[Body] = &[
    ("UNSUBSCRIBE", V3, 0xa2, b"\x00\x01\x00\x01a", OK),
    ("UNSUBSCRIBE", V5, 0xa2, b"\x00\x01\x00\x00\x0a$share/g/a", OK),
    ("no filter", V3, 0xa2, b"\x00\x01", PROTOCOL),
    ("no filter", V5, 0xa2, b"\x00\x01\x00", PROTOCOL),
    ("Packet Identifier 0", V3, 0xa2, b"\x00\x00\x00\x01a", PROTOCOL),
    ("Packet Identifier 0", V5, 0xa2, b"\x00\x00\x00\x00\x01a", PROTOCOL),
    ("filter empty", V3, 0xa2, b"\x00\x01\x00\x00", MALFORMED),
    ("filter empty", V5, 0xa2, b"\x00\x01\x00\x00\x00", MALFORMED),
    ("filter cut", V3, 0xa2, b"\x00\x01\x00\x02a", MALFORMED),
    ("# before the end", V3, 0xa2, b"\x00\x01\x00\x03#/a", MALFORMED),
    ("+ in a level", V5, 0xa2, b"\x00\x01\x00\x00\x02a+", MALFORMED),
    ("ShareName empty", V5, 0xa2, b"\x00\x01\x00\x00\x09$share//a", MALFORMED),
    ("U+0000 in a filter", V5, 0xa2, b"\x00\x01\x00\x00\x01\x00", MALFORMED),
    ("Subscription Identifier in an UNSUBSCRIBE", V5, 0xa2, b"\x00\x01\x02\x0b\x01\x00\x01a", PROTOCOL),
    ("User Property", V5, 0xa2, b"\x00\x01\x07\x26\x00\x01k\x00\x01v\x00\x01a", OK),
];

const UNSUBACK: &[Body] = &[
    ("UNSUBACK", V3, 0xb0, b"\x00\x01", OK),
    ("UNSUBACK", V5, 0xb0, b"\x00\x01\x00\x11", OK),
    ("a Reason Code in 3.1.1", V3, 0xb0, b"\x00\x01\x00", MALFORMED),
    ("no Reason Code", V5, 0xb0, b"\x00\x01\x00", MALFORMED),
    ("Reason Code of a SUBACK", V5, 0xb0, b"\x00\x01\x00\x01", PROTOCOL),
    ("Packet Identifier 0", V3, 0xb0, b"\x00\x00", PROTOCOL),
    ("Packet Identifier 0", V5, 0xb0, b"\x00\x00\x00\x00", PROTOCOL),
];

const OTHERS: &[Body] = &[
    ("PINGREQ", V3, 0xc0, b"", OK),
    ("PINGREQ with a body", V3, 0xc0, b"x", MALFORMED),
    ("PINGREQ with a body", V5, 0xc0, b"\x00", MALFORMED),
    ("PINGRESP", V5, 0xd0, b"", OK),
    ("PINGRESP with a body", V5, 0xd0, b"x", MALFORMED),
    ("DISCONNECT", V3, 0xe0, b"", OK),
    ("DISCONNECT with a body", V3, 0xe0, b"\x00", MALFORMED),
    ("DISCONNECT", V5, 0xe0, b"", OK),
    ("Disconnect with Will Message", V5, 0xe0, b"\x04", OK),
    ("Bad authentication method", V5, 0xe0, b"\x8c", OK),
    ("Session Expiry Interval 0", V5, 0xe0, b"\x00\x05\x11\x00\x00\x00\x00", OK),
    (
        "Session Expiry Interval twice",
        V5,
        0xe0,
        b"\x00\x0a\x11\x00\x00\x00\x01\x11\x00\x00\x00\x01",
        PROTOCOL,
    ),
    ("Reason Code of a CONNACK", V5, 0xe0, b"\x86", PROTOCOL),
    ("Reason Code that is not defined", V5, 0xe0, b"\x05", PROTOCOL),
    ("a byte behind the properties", V5, 0xe0, b"\x00\x00x", MALFORMED),
    ("Topic Alias in a DISCONNECT", V5, 0xe0, b"\x00\x03\x23\x00\x01", PROTOCOL),
    ("AUTH, shortest", V5, 0xf0, b"", OK),
    ("AUTH", V5, 0xf0, b"\x18\x08\x15\x00\x01m\x16\x00\x01d", OK),
    ("Success without properties", V5, 0xf0, b"\x00", MALFORMED),
    ("no Authentication Method", V5, 0xf0, b"\x18\x00", PROTOCOL),
    ("Authentication Data alone", V5, 0xf0, b"\x18\x04\x16\x00\x01d", PROTOCOL),
    ("Authentication Method twice", V5, 0xf0, b"\x18\x08\x15\x00\x01m\x15\x00\x01m", PROTOCOL),
    ("Reason Code of a DISCONNECT", V5, 0xf0, b"\x8e\x04\x15\x00\x01m", PROTOCOL),
    ("Topic Alias in an AUTH", V5, 0xf0, b"\x18\x07\x15\x00\x01m\x23\x00\x01", PROTOCOL),
    ("a byte behind the properties", V5, 0xf0, b"\x18\x04\x15\x00\x01mx", MALFORMED),
];
