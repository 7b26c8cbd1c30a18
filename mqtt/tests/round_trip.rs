//! Whatever is encoded decodes to itself, and nothing else decodes to anything by accident.

mod common;

use proptest::collection::vec;
use proptest::prelude::*;
use sotto_model::limits::PACKET_BYTES_MAX;
use sotto_mqtt::codec::encode::write_remaining_length;
use sotto_mqtt::codec::properties::{Properties, Property, PropertyBuf, PropertyContext};
use sotto_mqtt::codec::{connect_version, decode, packet_len};
use sotto_mqtt::packet::{Packet, Version};

use common::{property_list, soundness, versioned_packet};

fn encoded(packet: &Packet<'_>, version: Version) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.encode(version, &mut bytes);
    bytes
}

proptest! {
    #[test]
    fn every_packet_decodes_to_itself_and_encodes_to_the_same_bytes(
        (version, packet) in versioned_packet(), behind in vec(any::<u8>(), 0..4),
    ) {
        let mut bytes = encoded(&packet, version);
        let len = bytes.len();
        prop_assert_eq!(packet.encoded_len(version), len);
        bytes.extend(behind);
        let (decoded, consumed) = decode(&bytes, version, PACKET_BYTES_MAX)
            .unwrap_or_else(|error| panic!("{error}: {:02x?}", &bytes[..len]))
            .expect("complete");
        prop_assert_eq!(consumed, len);
        prop_assert!(decoded == packet, "{:?} became {:?}", packet, decoded);
        prop_assert_eq!(encoded(&decoded, version), &bytes[..len]);
    }

    #[test]
    fn every_beginning_of_a_packet_is_incomplete((version, packet) in versioned_packet()) {
        let bytes = encoded(&packet, version);
        for end in 0..bytes.len() {
            prop_assert_eq!(decode(&bytes[..end], version, PACKET_BYTES_MAX), Ok(None));
            let len = packet_len(&bytes[..end], PACKET_BYTES_MAX);
            prop_assert!(matches!(len, Ok(None)) || len == Ok(Some(bytes.len())));
        }
    }

    #[test]
    fn packets_in_a_row_are_told_apart(packets in vec(versioned_packet(), 1..6)) {
        let version = packets[0].0;
        let packets: Vec<_> = packets.into_iter().filter(|(other, _)| *other == version).collect();
        let stream: Vec<u8> = packets.iter().flat_map(|(_, packet)| encoded(packet, version)).collect();
        let mut rest = &stream[..];
        for (_, packet) in &packets {
            let (decoded, consumed) =
                decode(rest, version, PACKET_BYTES_MAX).expect("valid").expect("complete");
            prop_assert!(decoded == *packet);
            rest = &rest[consumed..];
        }
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn a_connect_decodes_under_any_version_and_names_its_own((version, packet) in versioned_packet()) {
        let bytes = encoded(&packet, version);
        if let Packet::Connect(connect) = &packet {
            for under in [Version::V3, Version::V5] {
                let decoded = decode(&bytes, under, PACKET_BYTES_MAX).expect("valid").expect("complete").0;
                prop_assert!(decoded == packet);
            }
            prop_assert_eq!(connect_version(&bytes), Some(connect.version));
        } else {
            prop_assert_eq!(connect_version(&bytes), None);
        }
    }

    #[test]
    fn a_packet_over_the_size_limit_is_refused_and_one_at_it_is_not((version, packet) in versioned_packet()) {
        let bytes = encoded(&packet, version);
        let len = u32::try_from(bytes.len()).expect("small");
        prop_assert!(decode(&bytes, version, len).is_ok());
        prop_assert!(decode(&bytes, version, len - 1).is_err());
        prop_assert!(decode(&bytes[..bytes.len().min(5)], version, len - 1).is_err());
    }

    #[test]
    fn a_packet_with_a_changed_byte_decodes_to_something_sound_or_is_refused(
        (version, packet) in versioned_packet(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = encoded(&packet, version);
        for (index, value) in changes {
            let index = index.index(bytes.len());
            bytes[index] = value;
        }
        soundness::check(&bytes, version);
    }

    #[test]
    fn a_packet_cut_or_grown_with_its_length_set_to_match_is_sound_or_refused(
        (version, packet) in versioned_packet(), cut in any::<prop::sample::Index>(), grow in vec(any::<u8>(), 0..8),
    ) {
        let whole = encoded(&packet, version);
        let header_len = 2 + whole[1..].iter().take_while(|&&byte| byte & 0x80 != 0).count();
        let body = &whole[header_len..];
        let mut body = body[..cut.index(body.len() + 1)].to_vec();
        body.extend(grow);
        let mut bytes = vec![whole[0]];
        write_remaining_length(u32::try_from(body.len()).expect("small"), &mut bytes);
        bytes.extend(body);
        soundness::check(&bytes, version);
    }

    #[test]
    fn arbitrary_bytes_are_sound_or_refused(bytes in vec(any::<u8>(), 0..64), v5 in any::<bool>()) {
        soundness::check(&bytes, if v5 { Version::V5 } else { Version::V3 });
    }

    #[test]
    fn properties_that_were_stored_are_checked_and_read_again(list in property_list(PropertyContext::Publish)) {
        let buf: PropertyBuf = list.iter().copied().collect();
        let stored = buf.as_properties().as_bytes();
        let again = PropertyBuf::from_wire_checked(PropertyContext::Publish, stored).expect("valid");
        prop_assert!(again.as_properties().iter().eq(list.iter().copied()));
        for id in list.iter().map(Property::id) {
            let mut one = PropertyBuf::new();
            one.extend_filtered(buf.as_properties(), |other| other == id);
            prop_assert!(one.as_properties().iter().eq(list.iter().copied().filter(|other| other.id() == id)));
        }
    }

    #[test]
    fn arbitrary_properties_are_sound_or_refused(bytes in vec(any::<u8>(), 0..32)) {
        if let Ok(properties) = Properties::check(PropertyContext::Publish, &bytes) {
            let copy: PropertyBuf = properties.iter().collect();
            prop_assert_eq!(copy.as_properties().as_bytes(), properties.as_bytes());
        }
    }
}
