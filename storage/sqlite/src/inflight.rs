//! What a session has in flight, as one column: 11 bytes a message, in the order in which they were sent.
//!
//! ```text
//! byte  0           2                       10        11
//!       ┌───────────┬───────────────────────┬─────────┐
//!       │ packet id │ offset, big-endian    │ state   │   state: bits 0–1 QoS, bit 2 released, bit 3 RETAIN
//!       └───────────┴───────────────────────┴─────────┘
//! ```

use sotto_model::{Offset, PacketId, QoS};
use sotto_storage::StoreError;
use sotto_storage::session_store::Inflight;

const ENTRY_BYTES: usize = 11;
const RELEASED: u8 = 0b100;
const RETAIN: u8 = 0b1000;

pub(crate) fn encode_inflight(inflight: &[Inflight]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(inflight.len() * ENTRY_BYTES);
    for entry in inflight {
        bytes.extend(entry.packet_id.0.get().to_be_bytes());
        bytes.extend(entry.offset.0.to_be_bytes());
        let released = if entry.released { RELEASED } else { 0 };
        let retain = if entry.retain { RETAIN } else { 0 };
        bytes.push(entry.qos as u8 | released | retain);
    }
    bytes
}

pub(crate) fn decode_inflight(bytes: &[u8]) -> Result<Vec<Inflight>, StoreError> {
    let (entries, rest) = bytes.as_chunks::<ENTRY_BYTES>();
    if !rest.is_empty() {
        return Err(StoreError::Inconsistent("inflight"));
    }
    entries.iter().map(decode_entry).collect()
}

fn decode_entry(entry: &[u8; ENTRY_BYTES]) -> Result<Inflight, StoreError> {
    let [p0, p1, o0, o1, o2, o3, o4, o5, o6, o7, state] = *entry;
    let packet_id = PacketId::new(u16::from_be_bytes([p0, p1]));
    let qos = if state & !(RELEASED | RETAIN | 0b11) == 0 { QoS::from_bits(state & 0b11) } else { None };
    let (Some(packet_id), Some(qos)) = (packet_id, qos) else {
        return Err(StoreError::Inconsistent("inflight"));
    };
    let offset = Offset(u64::from_be_bytes([o0, o1, o2, o3, o4, o5, o6, o7]));
    let (retain, released) = (state & RETAIN != 0, state & RELEASED != 0);
    Ok(Inflight { packet_id, offset, qos, retain, released })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_flight_survives_its_column() {
        let inflight = [
            Inflight {
                packet_id: PacketId::FIRST,
                offset: Offset(1),
                qos: QoS::AtLeastOnce,
                retain: true,
                released: false,
            },
            Inflight {
                packet_id: PacketId::new(u16::MAX).expect("not zero"),
                offset: Offset(1 << 40),
                qos: QoS::ExactlyOnce,
                retain: false,
                released: true,
            },
        ];
        assert_eq!(decode_inflight(&encode_inflight(&inflight)).expect("decodes"), inflight);
        assert_eq!(decode_inflight(&[]).expect("decodes"), []);
    }

    #[test]
    fn a_damaged_column_is_noticed() {
        let whole = encode_inflight(&[Inflight {
            packet_id: PacketId::FIRST,
            offset: Offset(1),
            qos: QoS::AtLeastOnce,
            retain: false,
            released: false,
        }]);
        assert!(decode_inflight(&whole[1..]).is_err());
        let zero_packet_id = [[0, 0].as_slice(), &whole[2..]].concat();
        assert!(decode_inflight(&zero_packet_id).is_err());
        let bad_state = [&whole[..10], &[0b11]].concat();
        assert!(decode_inflight(&bad_state).is_err());
    }
}
