//! From a CONNECT packet to what it settles for the life of the connection.

use sotto_model::QoS;
use sotto_model::limits::{INFLIGHT_MAX, PACKET_BYTES_MAX, RECEIVE_MAXIMUM, SESSION_EXPIRY_SECONDS_MAX};

use crate::codec::properties::{Property, PropertyBuf};
use crate::packet::{ConnAck, Connect, Packet, Version};
use crate::reason::ReasonCode;

/// What client and server agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Negotiated {
    pub version: Version,
    /// Seconds; 0: none.
    pub keep_alive: u16,
    /// Unacknowledged QoS 1 and 2 PUBLISH packets that the client takes, and no more than `INFLIGHT_MAX`.
    pub send_maximum: u16,
    /// Largest packet that the client takes, bytes.
    pub packet_bytes_max: u32,
    /// Reason strings and user properties may be sent on any packet. [MQTT-3.1.2-29]
    pub problem_information: bool,
    /// Granted; 0 ends the session with the connection, `u32::MAX` never ends it.
    pub session_expiry_seconds: u32,
    pub clean_start: bool,
    /// What the client asked for was more than is granted.
    session_expiry_capped: bool,
}

/// The Will Message, kept until it is published or withdrawn.
#[derive(Clone, PartialEq, Eq)]
pub struct Will {
    pub topic: Box<str>,
    pub payload: Box<[u8]>,
    pub qos: QoS,
    pub retain: bool,
    /// Encoded, without those that are meant for the server alone.
    pub properties: Box<[u8]>,
    pub message_expiry_seconds: Option<u32>,
    pub delay_seconds: u32,
}

/// A CONNECT that obeys the specification; who it is has yet to be shown.
pub struct ConnectRequest {
    pub negotiated: Negotiated,
    /// Empty: the server is to assign one.
    pub client_id: String,
    pub username: Option<String>,
    pub password: Option<Vec<u8>>,
    pub will: Option<Box<Will>>,
}

impl ConnectRequest {
    /// The reason code is for the CONNACK, after which the connection closes. [MQTT-3.1.4-2]
    pub fn accept(connect: &Connect<'_>) -> Result<Self, ReasonCode> {
        let properties = connect.properties;
        if properties.authentication_method().is_some() {
            return Err(ReasonCode::BadAuthenticationMethod);
        }
        let asked_expiry = match connect.version {
            Version::V5 => properties.session_expiry_interval().unwrap_or(0),
            // A 3.1.1 session without Clean Session has no end of its own. [MQTT-3.1.2-4]
            Version::V3 if connect.clean_start => 0,
            Version::V3 => u32::MAX,
        };
        // [MQTT-3.1.3-8]
        if connect.client_id.is_empty() && connect.version == Version::V3 && !connect.clean_start {
            return Err(ReasonCode::ClientIdentifierNotValid);
        }
        let session_expiry_seconds = asked_expiry.min(SESSION_EXPIRY_SECONDS_MAX);
        let negotiated = Negotiated {
            version: connect.version,
            keep_alive: connect.keep_alive,
            send_maximum: properties.receive_maximum().unwrap_or(u16::MAX).min(INFLIGHT_MAX),
            packet_bytes_max: properties.maximum_packet_size().unwrap_or(u32::MAX),
            problem_information: properties.request_problem_information().unwrap_or(true),
            session_expiry_seconds,
            clean_start: connect.clean_start,
            session_expiry_capped: session_expiry_seconds != asked_expiry,
        };
        let will = connect.will.as_ref().map(|will| {
            let mut kept = PropertyBuf::new();
            for property in will.properties {
                if !matches!(property, Property::WillDelayInterval(_) | Property::MessageExpiryInterval(_)) {
                    kept.push(property);
                }
            }
            Box::new(Will {
                topic: will.topic.into(),
                payload: will.payload.into(),
                qos: will.qos,
                retain: will.retain,
                properties: kept.as_properties().as_bytes().into(),
                message_expiry_seconds: will.properties.message_expiry_interval(),
                delay_seconds: will.properties.will_delay_interval().unwrap_or(0),
            })
        });
        Ok(Self {
            negotiated,
            client_id: connect.client_id.to_owned(),
            username: connect.username.map(str::to_owned),
            password: connect.password.map(<[u8]>::to_vec),
            will,
        })
    }
}

impl Negotiated {
    /// CONNACK with Success, telling a version 5 client what this server does not follow by default.
    pub fn accepted(&self, session_present: bool, assigned_client_id: Option<&str>, out: &mut Vec<u8>) {
        let mut properties = PropertyBuf::new();
        if self.version == Version::V5 {
            if self.session_expiry_capped {
                properties.push(Property::SessionExpiryInterval(self.session_expiry_seconds));
            }
            properties.push(Property::ReceiveMaximum(RECEIVE_MAXIMUM));
            properties.push(Property::MaximumPacketSize(PACKET_BYTES_MAX));
            properties.push(Property::SharedSubscriptionAvailable(false));
            if let Some(client_id) = assigned_client_id {
                properties.push(Property::AssignedClientIdentifier(client_id));
            }
        }
        let connack =
            ConnAck { session_present, reason: ReasonCode::Success, properties: properties.as_properties() };
        Packet::ConnAck(connack).encode(self.version, out);
    }
}

/// CONNACK with a failure; Session Present is 0. [MQTT-3.2.2-4] [MQTT-3.2.2-6]
pub fn refused(version: Version, reason: ReasonCode, out: &mut Vec<u8>) {
    let connack =
        ConnAck { session_present: false, reason, properties: crate::codec::properties::Properties::EMPTY };
    Packet::ConnAck(connack).encode(version, out);
}
