//! A list of properties (MQTT 5 §2.2.2), kept as encoded.

use std::fmt;

use sotto_model::QoS;
use sotto_model::limits::USER_PROPERTIES_MAX;

use super::decode_error::DecodeError;
use super::primitive::{Reader, Sink, variable_byte_integer_size};
use super::property::RawProperty;
pub use super::property::{Property, PropertyContext, PropertyId};
use crate::reason::ReasonCode;

/// A checked list, borrowed. Iterating walks the bytes.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Properties<'a> {
    /// The properties without the Property Length before them.
    raw: &'a [u8],
}

impl<'a> Properties<'a> {
    pub const EMPTY: Properties<'static> = Properties { raw: &[] };

    /// Takes encoded properties, without their length, as `context` may carry them.
    pub fn check(context: PropertyContext, raw: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(raw);
        let mut seen = 0_u64;
        let mut user_properties = 0;
        while !reader.is_empty() {
            let id = PropertyId::read(&mut reader)?;
            if id == PropertyId::UserProperty {
                user_properties += 1;
                if user_properties > USER_PROPERTIES_MAX {
                    return Err(DecodeError::new(
                        ReasonCode::QuotaExceeded,
                        "a packet holds too many user properties",
                    ));
                }
            }
            let bit = 1 << id as u8;
            if seen & bit != 0 && !id.repeats_in(context) {
                return Err(DecodeError::protocol("a property stands twice"));
            }
            seen |= bit;
            let property = id.read_value(&mut reader)?;
            if !id.is_used_in(context) {
                // It was parsed, so by the definitions of section 1.2 it is no Malformed Packet, as which
                // section 2.2.2.2 has it: other brokers say Protocol Error too.
                return Err(DecodeError::protocol("a property is not one of its packet's"));
            }
            property.check_value()?;
        }
        let has = |id: PropertyId| seen & (1 << id as u8) != 0;
        if has(PropertyId::AuthenticationData) && !has(PropertyId::AuthenticationMethod) {
            return Err(DecodeError::protocol("Authentication Data stands without an Authentication Method"));
        }
        Ok(Self { raw })
    }

    /// Reads the Property Length and the properties behind it.
    #[inline]
    pub(crate) fn read(context: PropertyContext, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let len = reader.variable_byte_integer()?;
        if len == 0 {
            return Ok(Self::EMPTY);
        }
        Self::check(context, reader.bytes(len as usize)?)
    }

    pub(crate) fn write(self, out: &mut impl Sink) {
        out.variable_byte_integer(u32::try_from(self.raw.len()).unwrap_or(u32::MAX));
        out.bytes(self.raw);
    }

    pub fn is_empty(self) -> bool {
        self.raw.is_empty()
    }

    /// The encoded properties, without the Property Length.
    pub fn as_bytes(self) -> &'a [u8] {
        self.raw
    }

    /// Bytes that the list takes in a packet, its length field included.
    pub fn encoded_len(self) -> usize {
        variable_byte_integer_size(u32::try_from(self.raw.len()).unwrap_or(u32::MAX)) + self.raw.len()
    }

    pub fn iter(self) -> PropertiesIter<'a> {
        PropertiesIter { reader: Reader::new(self.raw) }
    }

    pub fn user_properties(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.iter().filter_map(|property| match property {
            Property::UserProperty(name, value) => Some((name, value)),
            _ => None,
        })
    }

    /// The first property with this identifier; the values of others are not looked at.
    fn find(self, id: PropertyId) -> Option<Property<'a>> {
        let mut reader = Reader::new(self.raw);
        while !reader.is_empty() {
            let raw = RawProperty::read(&mut reader).expect(CHECKED);
            if raw.id == id {
                return Some(raw.property().expect(CHECKED));
            }
        }
        None
    }
}

macro_rules! shortcuts {
    ($($(#[$doc:meta])* $name:ident = $property:ident -> $value:ty;)+) => {
        impl<'a> Properties<'a> {$(
            $(#[$doc])*
            pub fn $name(self) -> Option<$value> {
                match self.find(PropertyId::$property)? {
                    Property::$property(value) => Some(value),
                    _ => None,
                }
            }
        )+}
    };
}

shortcuts! {
    payload_format_indicator = PayloadFormatIndicator -> bool;
    /// Seconds.
    message_expiry_interval = MessageExpiryInterval -> u32;
    content_type = ContentType -> &'a str;
    response_topic = ResponseTopic -> &'a str;
    correlation_data = CorrelationData -> &'a [u8];
    /// The first; a PUBLISH may carry more.
    subscription_identifier = SubscriptionIdentifier -> u32;
    /// Seconds.
    session_expiry_interval = SessionExpiryInterval -> u32;
    assigned_client_identifier = AssignedClientIdentifier -> &'a str;
    /// Seconds.
    server_keep_alive = ServerKeepAlive -> u16;
    authentication_method = AuthenticationMethod -> &'a str;
    authentication_data = AuthenticationData -> &'a [u8];
    request_problem_information = RequestProblemInformation -> bool;
    /// Seconds.
    will_delay_interval = WillDelayInterval -> u32;
    request_response_information = RequestResponseInformation -> bool;
    response_information = ResponseInformation -> &'a str;
    server_reference = ServerReference -> &'a str;
    reason_string = ReasonString -> &'a str;
    receive_maximum = ReceiveMaximum -> u16;
    topic_alias_maximum = TopicAliasMaximum -> u16;
    topic_alias = TopicAlias -> u16;
    maximum_qos = MaximumQoS -> QoS;
    retain_available = RetainAvailable -> bool;
    /// Bytes.
    maximum_packet_size = MaximumPacketSize -> u32;
    wildcard_subscription_available = WildcardSubscriptionAvailable -> bool;
    subscription_identifier_available = SubscriptionIdentifierAvailable -> bool;
    shared_subscription_available = SharedSubscriptionAvailable -> bool;
}

/// Why reading a `Properties` again cannot fail.
const CHECKED: &str = "checked when decoded or pushed";

/// A value may be private.
impl fmt::Debug for Properties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> IntoIterator for Properties<'a> {
    type Item = Property<'a>;
    type IntoIter = PropertiesIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[derive(Clone)]
pub struct PropertiesIter<'a> {
    reader: Reader<'a>,
}

impl<'a> Iterator for PropertiesIter<'a> {
    type Item = Property<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_empty() {
            return None;
        }
        let raw = RawProperty::read(&mut self.reader).expect(CHECKED);
        Some(raw.property().expect(CHECKED))
    }
}

/// A list that owns its bytes. Each value is one that the wire allows; whether a packet may carry the
/// property, and how often, is for whoever builds the list to know.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PropertyBuf(Vec<u8>);

impl PropertyBuf {
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Copies properties that were stored without their length, checking them again.
    pub fn from_wire_checked(context: PropertyContext, raw: &[u8]) -> Result<Self, DecodeError> {
        Properties::check(context, raw).map(|properties| Self(properties.raw.to_vec()))
    }

    /// # Panics
    /// When no packet could carry the value: a string or binary longer than 65,535 bytes, U+0000 in a
    /// string, a number out of its property's range.
    pub fn push(&mut self, property: Property<'_>) -> &mut Self {
        let start = self.0.len();
        property.write(&mut self.0);
        let pushed = RawProperty::read(&mut Reader::new(&self.0[start..]))
            .and_then(|raw| raw.property())
            .and_then(|property| property.check_value());
        if let Err(error) = pushed {
            panic!("no packet carries this property: {error}");
        }
        self
    }

    /// Appends those properties of another list that `keep` names.
    pub fn extend_filtered(&mut self, from: Properties<'_>, keep: impl Fn(PropertyId) -> bool) -> &mut Self {
        let mut reader = Reader::new(from.raw);
        while !reader.is_empty() {
            let raw = RawProperty::read(&mut reader).expect(CHECKED);
            if keep(raw.id) {
                self.0.extend_from_slice(raw.bytes);
            }
        }
        self
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    pub fn as_properties(&self) -> Properties<'_> {
        Properties { raw: &self.0 }
    }

    /// The encoded properties, without the Property Length.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

impl<'p> FromIterator<Property<'p>> for PropertyBuf {
    fn from_iter<I: IntoIterator<Item = Property<'p>>>(properties: I) -> Self {
        let mut buf = Self::new();
        for property in properties {
            buf.push(property);
        }
        buf
    }
}

impl fmt::Debug for PropertyBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_properties().fmt(f)
    }
}
