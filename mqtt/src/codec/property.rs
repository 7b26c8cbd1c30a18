//! One property: identifier and value (MQTT 5 §2.2.2.2, Table 2-4).

use std::fmt;

use sotto_model::QoS;

use super::decode_error::DecodeError;
use super::primitive::{Reader, Sink, VARIABLE_BYTE_INTEGER_MAX};

/// What carries a list of properties: a packet, or the will in a CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum PropertyContext {
    Connect = 1 << 0,
    Will = 1 << 1,
    ConnAck = 1 << 2,
    Publish = 1 << 3,
    PubAck = 1 << 4,
    PubRec = 1 << 5,
    PubRel = 1 << 6,
    PubComp = 1 << 7,
    Subscribe = 1 << 8,
    SubAck = 1 << 9,
    Unsubscribe = 1 << 10,
    UnsubAck = 1 << 11,
    Disconnect = 1 << 12,
    Auth = 1 << 13,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Property<'a> {
    /// Whether the payload is UTF-8.
    PayloadFormatIndicator(bool),
    /// Seconds.
    MessageExpiryInterval(u32),
    ContentType(&'a str),
    ResponseTopic(&'a str),
    CorrelationData(&'a [u8]),
    /// 1 to 268,435,455.
    SubscriptionIdentifier(u32),
    /// Seconds; `u32::MAX` never expires.
    SessionExpiryInterval(u32),
    AssignedClientIdentifier(&'a str),
    /// Seconds.
    ServerKeepAlive(u16),
    AuthenticationMethod(&'a str),
    AuthenticationData(&'a [u8]),
    RequestProblemInformation(bool),
    /// Seconds.
    WillDelayInterval(u32),
    RequestResponseInformation(bool),
    ResponseInformation(&'a str),
    ServerReference(&'a str),
    ReasonString(&'a str),
    /// Never zero.
    ReceiveMaximum(u16),
    TopicAliasMaximum(u16),
    /// Zero is let through: it is answered with Topic Alias invalid, which takes a session to say.
    TopicAlias(u16),
    /// QoS 0 or 1.
    MaximumQoS(QoS),
    RetainAvailable(bool),
    UserProperty(&'a str, &'a str),
    /// Bytes; never zero.
    MaximumPacketSize(u32),
    WildcardSubscriptionAvailable(bool),
    SubscriptionIdentifierAvailable(bool),
    SharedSubscriptionAvailable(bool),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PropertyId {
    PayloadFormatIndicator = 0x01,
    MessageExpiryInterval = 0x02,
    ContentType = 0x03,
    ResponseTopic = 0x08,
    CorrelationData = 0x09,
    SubscriptionIdentifier = 0x0b,
    SessionExpiryInterval = 0x11,
    AssignedClientIdentifier = 0x12,
    ServerKeepAlive = 0x13,
    AuthenticationMethod = 0x15,
    AuthenticationData = 0x16,
    RequestProblemInformation = 0x17,
    WillDelayInterval = 0x18,
    RequestResponseInformation = 0x19,
    ResponseInformation = 0x1a,
    ServerReference = 0x1c,
    ReasonString = 0x1f,
    ReceiveMaximum = 0x21,
    TopicAliasMaximum = 0x22,
    TopicAlias = 0x23,
    MaximumQoS = 0x24,
    RetainAvailable = 0x25,
    UserProperty = 0x26,
    MaximumPacketSize = 0x27,
    WildcardSubscriptionAvailable = 0x28,
    SubscriptionIdentifierAvailable = 0x29,
    SharedSubscriptionAvailable = 0x2a,
}

/// A property's place in its list: told apart, its value not yet looked at.
#[derive(Clone, Copy)]
pub(crate) struct RawProperty<'a> {
    pub(crate) id: PropertyId,
    /// Identifier and value, as encoded.
    pub(crate) bytes: &'a [u8],
}

impl<'a> RawProperty<'a> {
    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let whole = reader.rest();
        let id = PropertyId::read(reader)?;
        id.skip_value(reader)?;
        Ok(Self { id, bytes: &whole[..whole.len() - reader.rest().len()] })
    }

    pub(crate) fn property(&self) -> Result<Property<'a>, DecodeError> {
        self.id.read_value(&mut Reader::new(&self.bytes[1..]))
    }
}

impl PropertyId {
    pub fn from_u8(id: u8) -> Option<Self> {
        Some(match id {
            0x01 => Self::PayloadFormatIndicator,
            0x02 => Self::MessageExpiryInterval,
            0x03 => Self::ContentType,
            0x08 => Self::ResponseTopic,
            0x09 => Self::CorrelationData,
            0x0b => Self::SubscriptionIdentifier,
            0x11 => Self::SessionExpiryInterval,
            0x12 => Self::AssignedClientIdentifier,
            0x13 => Self::ServerKeepAlive,
            0x15 => Self::AuthenticationMethod,
            0x16 => Self::AuthenticationData,
            0x17 => Self::RequestProblemInformation,
            0x18 => Self::WillDelayInterval,
            0x19 => Self::RequestResponseInformation,
            0x1a => Self::ResponseInformation,
            0x1c => Self::ServerReference,
            0x1f => Self::ReasonString,
            0x21 => Self::ReceiveMaximum,
            0x22 => Self::TopicAliasMaximum,
            0x23 => Self::TopicAlias,
            0x24 => Self::MaximumQoS,
            0x25 => Self::RetainAvailable,
            0x26 => Self::UserProperty,
            0x27 => Self::MaximumPacketSize,
            0x28 => Self::WildcardSubscriptionAvailable,
            0x29 => Self::SubscriptionIdentifierAvailable,
            0x2a => Self::SharedSubscriptionAvailable,
            _ => return None,
        })
    }

    #[inline]
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        // A Variable Byte Integer, but every identifier that is defined has a single byte.
        Self::from_u8(reader.u8()?).ok_or(DecodeError::malformed("a property identifier is not defined"))
    }

    /// Whether Table 2-4 lets `context` carry it.
    pub fn is_used_in(self, context: PropertyContext) -> bool {
        self.carriers() & context as u16 != 0
    }

    /// Whether `context` may carry it more than once.
    pub(crate) fn repeats_in(self, context: PropertyContext) -> bool {
        match self {
            Self::UserProperty => true,
            Self::SubscriptionIdentifier => context == PropertyContext::Publish,
            _ => false,
        }
    }

    fn carriers(self) -> u16 {
        const CONNECT: u16 = PropertyContext::Connect as u16;
        const WILL: u16 = PropertyContext::Will as u16;
        const CONNACK: u16 = PropertyContext::ConnAck as u16;
        const PUBLISH: u16 = PropertyContext::Publish as u16;
        const PUBACK: u16 = PropertyContext::PubAck as u16;
        const PUBREC: u16 = PropertyContext::PubRec as u16;
        const PUBREL: u16 = PropertyContext::PubRel as u16;
        const PUBCOMP: u16 = PropertyContext::PubComp as u16;
        const SUBSCRIBE: u16 = PropertyContext::Subscribe as u16;
        const SUBACK: u16 = PropertyContext::SubAck as u16;
        const UNSUBACK: u16 = PropertyContext::UnsubAck as u16;
        const DISCONNECT: u16 = PropertyContext::Disconnect as u16;
        const AUTH: u16 = PropertyContext::Auth as u16;
        match self {
            Self::PayloadFormatIndicator
            | Self::MessageExpiryInterval
            | Self::ContentType
            | Self::ResponseTopic
            | Self::CorrelationData => PUBLISH | WILL,
            Self::SubscriptionIdentifier => PUBLISH | SUBSCRIBE,
            Self::SessionExpiryInterval => CONNECT | CONNACK | DISCONNECT,
            Self::AuthenticationMethod | Self::AuthenticationData => CONNECT | CONNACK | AUTH,
            Self::RequestProblemInformation | Self::RequestResponseInformation => CONNECT,
            Self::WillDelayInterval => WILL,
            Self::ServerReference => CONNACK | DISCONNECT,
            Self::ReasonString => {
                CONNACK | PUBACK | PUBREC | PUBREL | PUBCOMP | SUBACK | UNSUBACK | DISCONNECT | AUTH
            }
            Self::ReceiveMaximum | Self::TopicAliasMaximum | Self::MaximumPacketSize => CONNECT | CONNACK,
            Self::TopicAlias => PUBLISH,
            Self::AssignedClientIdentifier
            | Self::ServerKeepAlive
            | Self::ResponseInformation
            | Self::MaximumQoS
            | Self::RetainAvailable
            | Self::WildcardSubscriptionAvailable
            | Self::SubscriptionIdentifierAvailable
            | Self::SharedSubscriptionAvailable => CONNACK,
            Self::UserProperty => u16::MAX,
        }
    }

    fn skip_value(self, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        match self {
            Self::PayloadFormatIndicator
            | Self::RequestProblemInformation
            | Self::RequestResponseInformation
            | Self::MaximumQoS
            | Self::RetainAvailable
            | Self::WildcardSubscriptionAvailable
            | Self::SubscriptionIdentifierAvailable
            | Self::SharedSubscriptionAvailable => reader.bytes(1)?,
            Self::ServerKeepAlive | Self::ReceiveMaximum | Self::TopicAliasMaximum | Self::TopicAlias => {
                reader.bytes(2)?
            }
            Self::MessageExpiryInterval
            | Self::SessionExpiryInterval
            | Self::WillDelayInterval
            | Self::MaximumPacketSize => reader.bytes(4)?,
            Self::SubscriptionIdentifier => {
                reader.variable_byte_integer()?;
                &[]
            }
            Self::ContentType
            | Self::ResponseTopic
            | Self::CorrelationData
            | Self::AssignedClientIdentifier
            | Self::AuthenticationMethod
            | Self::AuthenticationData
            | Self::ResponseInformation
            | Self::ServerReference
            | Self::ReasonString => reader.binary()?,
            Self::UserProperty => {
                reader.binary()?;
                reader.binary()?
            }
        };
        Ok(())
    }

    #[inline]
    pub(crate) fn read_value<'a>(self, reader: &mut Reader<'a>) -> Result<Property<'a>, DecodeError> {
        Ok(match self {
            Self::PayloadFormatIndicator => Property::PayloadFormatIndicator(flag(reader)?),
            Self::MessageExpiryInterval => Property::MessageExpiryInterval(reader.u32()?),
            Self::ContentType => Property::ContentType(reader.utf8()?),
            Self::ResponseTopic => Property::ResponseTopic(reader.name()?),
            Self::CorrelationData => Property::CorrelationData(reader.binary()?),
            Self::SubscriptionIdentifier => Property::SubscriptionIdentifier(reader.variable_byte_integer()?),
            Self::SessionExpiryInterval => Property::SessionExpiryInterval(reader.u32()?),
            Self::AssignedClientIdentifier => Property::AssignedClientIdentifier(reader.utf8()?),
            Self::ServerKeepAlive => Property::ServerKeepAlive(reader.u16()?),
            Self::AuthenticationMethod => Property::AuthenticationMethod(reader.utf8()?),
            Self::AuthenticationData => Property::AuthenticationData(reader.binary()?),
            Self::RequestProblemInformation => Property::RequestProblemInformation(flag(reader)?),
            Self::WillDelayInterval => Property::WillDelayInterval(reader.u32()?),
            Self::RequestResponseInformation => Property::RequestResponseInformation(flag(reader)?),
            Self::ResponseInformation => Property::ResponseInformation(reader.utf8()?),
            Self::ServerReference => Property::ServerReference(reader.utf8()?),
            Self::ReasonString => Property::ReasonString(reader.utf8()?),
            Self::ReceiveMaximum => Property::ReceiveMaximum(reader.u16()?),
            Self::TopicAliasMaximum => Property::TopicAliasMaximum(reader.u16()?),
            Self::TopicAlias => Property::TopicAlias(reader.u16()?),
            Self::MaximumQoS => Property::MaximumQoS(
                QoS::from_bits(reader.u8()?)
                    .ok_or(DecodeError::protocol("a Maximum QoS is neither 0 nor 1"))?,
            ),
            Self::RetainAvailable => Property::RetainAvailable(flag(reader)?),
            Self::UserProperty => Property::UserProperty(reader.utf8()?, reader.utf8()?),
            Self::MaximumPacketSize => Property::MaximumPacketSize(reader.u32()?),
            Self::WildcardSubscriptionAvailable => Property::WildcardSubscriptionAvailable(flag(reader)?),
            Self::SubscriptionIdentifierAvailable => Property::SubscriptionIdentifierAvailable(flag(reader)?),
            Self::SharedSubscriptionAvailable => Property::SharedSubscriptionAvailable(flag(reader)?),
        })
    }
}

/// A Byte that may only be 0 or 1.
fn flag(reader: &mut Reader<'_>) -> Result<bool, DecodeError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::protocol("a property that is a flag is neither 0 nor 1")),
    }
}

impl Property<'_> {
    pub fn id(&self) -> PropertyId {
        match self {
            Self::PayloadFormatIndicator(_) => PropertyId::PayloadFormatIndicator,
            Self::MessageExpiryInterval(_) => PropertyId::MessageExpiryInterval,
            Self::ContentType(_) => PropertyId::ContentType,
            Self::ResponseTopic(_) => PropertyId::ResponseTopic,
            Self::CorrelationData(_) => PropertyId::CorrelationData,
            Self::SubscriptionIdentifier(_) => PropertyId::SubscriptionIdentifier,
            Self::SessionExpiryInterval(_) => PropertyId::SessionExpiryInterval,
            Self::AssignedClientIdentifier(_) => PropertyId::AssignedClientIdentifier,
            Self::ServerKeepAlive(_) => PropertyId::ServerKeepAlive,
            Self::AuthenticationMethod(_) => PropertyId::AuthenticationMethod,
            Self::AuthenticationData(_) => PropertyId::AuthenticationData,
            Self::RequestProblemInformation(_) => PropertyId::RequestProblemInformation,
            Self::WillDelayInterval(_) => PropertyId::WillDelayInterval,
            Self::RequestResponseInformation(_) => PropertyId::RequestResponseInformation,
            Self::ResponseInformation(_) => PropertyId::ResponseInformation,
            Self::ServerReference(_) => PropertyId::ServerReference,
            Self::ReasonString(_) => PropertyId::ReasonString,
            Self::ReceiveMaximum(_) => PropertyId::ReceiveMaximum,
            Self::TopicAliasMaximum(_) => PropertyId::TopicAliasMaximum,
            Self::TopicAlias(_) => PropertyId::TopicAlias,
            Self::MaximumQoS(_) => PropertyId::MaximumQoS,
            Self::RetainAvailable(_) => PropertyId::RetainAvailable,
            Self::UserProperty(..) => PropertyId::UserProperty,
            Self::MaximumPacketSize(_) => PropertyId::MaximumPacketSize,
            Self::WildcardSubscriptionAvailable(_) => PropertyId::WildcardSubscriptionAvailable,
            Self::SubscriptionIdentifierAvailable(_) => PropertyId::SubscriptionIdentifierAvailable,
            Self::SharedSubscriptionAvailable(_) => PropertyId::SharedSubscriptionAvailable,
        }
    }

    /// What the value may not be although its data type could.
    #[inline]
    pub(crate) fn check_value(&self) -> Result<(), DecodeError> {
        match *self {
            Self::SubscriptionIdentifier(0) => {
                Err(DecodeError::protocol("a Subscription Identifier is zero"))
            }
            Self::SubscriptionIdentifier(identifier) if identifier > VARIABLE_BYTE_INTEGER_MAX => {
                Err(DecodeError::malformed("a Subscription Identifier is above 268,435,455"))
            }
            Self::ReceiveMaximum(0) => Err(DecodeError::protocol("a Receive Maximum is zero")),
            Self::MaximumPacketSize(0) => Err(DecodeError::protocol("a Maximum Packet Size is zero")),
            Self::MaximumQoS(QoS::ExactlyOnce) => {
                Err(DecodeError::protocol("a Maximum QoS is neither 0 nor 1"))
            }
            // [MQTT-3.3.2-13] [MQTT-3.3.2-14] [MQTT-4.7.3-1]
            Self::ResponseTopic(topic) if topic.is_empty() || topic.contains(['+', '#']) => {
                Err(DecodeError::protocol("a Response Topic is empty or holds a wildcard [MQTT-3.3.2-14]"))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn write(&self, out: &mut impl Sink) {
        out.u8(self.id() as u8);
        match *self {
            Self::PayloadFormatIndicator(value)
            | Self::RequestProblemInformation(value)
            | Self::RequestResponseInformation(value)
            | Self::RetainAvailable(value)
            | Self::WildcardSubscriptionAvailable(value)
            | Self::SubscriptionIdentifierAvailable(value)
            | Self::SharedSubscriptionAvailable(value) => out.u8(u8::from(value)),
            Self::MaximumQoS(value) => out.u8(value as u8),
            Self::ServerKeepAlive(value)
            | Self::ReceiveMaximum(value)
            | Self::TopicAliasMaximum(value)
            | Self::TopicAlias(value) => out.u16(value),
            Self::MessageExpiryInterval(value)
            | Self::SessionExpiryInterval(value)
            | Self::WillDelayInterval(value)
            | Self::MaximumPacketSize(value) => out.u32(value),
            Self::SubscriptionIdentifier(value) => out.variable_byte_integer(value),
            Self::ContentType(value)
            | Self::ResponseTopic(value)
            | Self::AssignedClientIdentifier(value)
            | Self::AuthenticationMethod(value)
            | Self::ResponseInformation(value)
            | Self::ServerReference(value)
            | Self::ReasonString(value) => out.utf8(value),
            Self::CorrelationData(value) | Self::AuthenticationData(value) => out.binary(value),
            Self::UserProperty(name, value) => {
                out.utf8(name);
                out.utf8(value);
            }
        }
    }
}

/// Names the property; a value may be private.
impl fmt::Debug for Property<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}(..)", self.id())
    }
}
