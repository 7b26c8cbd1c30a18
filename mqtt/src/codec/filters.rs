//! The topic filter lists of SUBSCRIBE and UNSUBSCRIBE, still encoded.

use sotto_model::SubscriptionOptions;
use sotto_model::limits::FILTERS_PER_PACKET_MAX;

use super::decode_error::DecodeError;
use super::primitive::{Reader, Sink};
use super::topic_filter::{SHARE, check_topic_filter};
use crate::packet::{SubscribeFilters, UnsubscribeFilters, Version};
use crate::reason::ReasonCode;

const TOO_MANY: DecodeError =
    DecodeError::new(ReasonCode::QuotaExceeded, "a packet holds too many topic filters");

impl<'a> SubscribeFilters<'a> {
    /// Appends the filters to `out` as a SUBSCRIBE carries them; the list borrows from there.
    ///
    /// # Panics
    /// When a filter is longer than 65,535 bytes or holds U+0000.
    pub fn encode(filters: &[(&str, SubscriptionOptions)], out: &'a mut Vec<u8>) -> Self {
        let start = out.len();
        for (filter, options) in filters {
            write_filter(filter, out);
            out.u8(options.to_bits());
        }
        Self { raw: &out[start..] }
    }

    pub fn iter(&self) -> SubscribeFiltersIter<'a> {
        SubscribeFiltersIter { reader: Reader::new(self.raw) }
    }

    /// Counts by walking the list.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Never true of a decoded packet.
    pub fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    pub(crate) fn decode(raw: &'a [u8], version: Version) -> Result<Self, DecodeError> {
        // [MQTT-3.8.3-2]; in 3.1.1 [MQTT-3.8.3-3]
        if raw.is_empty() {
            return Err(DecodeError::protocol("a SUBSCRIBE has no topic filter [MQTT-3.8.3-2]"));
        }
        let mut reader = Reader::new(raw);
        let mut count = 0;
        while !reader.is_empty() {
            count += 1;
            if count > FILTERS_PER_PACKET_MAX {
                return Err(TOO_MANY);
            }
            let filter = reader.name()?;
            check_topic_filter(filter, version)?;
            let bits = reader.u8()?;
            check_options(bits, version)?;
            // [MQTT-3.8.3-4]
            if bits & 0b100 != 0 && filter.starts_with(SHARE) {
                return Err(DecodeError::protocol("No Local is set on a shared subscription [MQTT-3.8.3-4]"));
            }
        }
        Ok(Self { raw })
    }
}

fn check_options(bits: u8, version: Version) -> Result<(), DecodeError> {
    let reserved = match version {
        Version::V3 => 0b1111_1100,
        Version::V5 => 0b1100_0000,
    };
    if bits & reserved != 0 {
        return Err(DecodeError::malformed("a reserved bit of a subscription is set [MQTT-3.8.3-5]"));
    }
    if bits & 0b11 == 0b11 {
        return Err(match version {
            Version::V3 => DecodeError::malformed("a Requested QoS is 3 [MQTT-3-8.3-4]"),
            Version::V5 => DecodeError::protocol("a Maximum QoS of a subscription is 3"),
        });
    }
    if bits & 0b11_0000 == 0b11_0000 {
        return Err(DecodeError::protocol("a Retain Handling is 3"));
    }
    Ok(())
}

impl<'a> IntoIterator for SubscribeFilters<'a> {
    type Item = (&'a str, SubscriptionOptions);
    type IntoIter = SubscribeFiltersIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a> IntoIterator for &SubscribeFilters<'a> {
    type Item = (&'a str, SubscriptionOptions);
    type IntoIter = SubscribeFiltersIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[derive(Clone)]
pub struct SubscribeFiltersIter<'a> {
    reader: Reader<'a>,
}

impl<'a> Iterator for SubscribeFiltersIter<'a> {
    type Item = (&'a str, SubscriptionOptions);

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_empty() {
            return None;
        }
        let filter = self.reader.utf8().expect("checked when decoded");
        let bits = self.reader.u8().expect("checked when decoded");
        Some((filter, SubscriptionOptions::from_bits(bits).expect("checked when decoded")))
    }
}

impl<'a> UnsubscribeFilters<'a> {
    /// Appends the filters to `out` as an UNSUBSCRIBE carries them; the list borrows from there.
    ///
    /// # Panics
    /// When a filter is longer than 65,535 bytes or holds U+0000.
    pub fn encode(filters: &[&str], out: &'a mut Vec<u8>) -> Self {
        let start = out.len();
        for filter in filters {
            write_filter(filter, out);
        }
        Self { raw: &out[start..] }
    }

    pub fn iter(&self) -> UnsubscribeFiltersIter<'a> {
        UnsubscribeFiltersIter { reader: Reader::new(self.raw) }
    }

    /// Counts by walking the list.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Never true of a decoded packet.
    pub fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    pub(crate) fn decode(raw: &'a [u8], version: Version) -> Result<Self, DecodeError> {
        // [MQTT-3.10.3-2]
        if raw.is_empty() {
            return Err(DecodeError::protocol("an UNSUBSCRIBE has no topic filter [MQTT-3.10.3-2]"));
        }
        let mut reader = Reader::new(raw);
        let mut count = 0;
        while !reader.is_empty() {
            count += 1;
            if count > FILTERS_PER_PACKET_MAX {
                return Err(TOO_MANY);
            }
            check_topic_filter(reader.name()?, version)?;
        }
        Ok(Self { raw })
    }
}

impl<'a> IntoIterator for UnsubscribeFilters<'a> {
    type Item = &'a str;
    type IntoIter = UnsubscribeFiltersIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a> IntoIterator for &UnsubscribeFilters<'a> {
    type Item = &'a str;
    type IntoIter = UnsubscribeFiltersIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[derive(Clone)]
pub struct UnsubscribeFiltersIter<'a> {
    reader: Reader<'a>,
}

impl<'a> Iterator for UnsubscribeFiltersIter<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_empty() {
            return None;
        }
        Some(self.reader.utf8().expect("checked when decoded"))
    }
}

fn write_filter(filter: &str, out: &mut Vec<u8>) {
    assert!(!filter.contains('\0'), "a topic filter has no U+0000 [MQTT-4.7.3-2]");
    out.utf8(filter);
}
