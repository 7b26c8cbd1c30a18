//! From a CONNECT packet to what it settles for the life of the connection.

use sotto_model::limits::TOPIC_ALIASES_SENT_MAX;
use sotto_model::{ClientLimits, QoS};

use crate::codec::properties::{Property, PropertyBuf};
use crate::packet::{Auth, ConnAck, Connect, Packet, Version};
use crate::reason::ReasonCode;

/// What client and server agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Negotiated {
    pub version: Version,
    /// Seconds; 0: none. The server's own where it granted less than was asked. [MQTT-3.1.2-21]
    pub keep_alive: u16,
    /// Unacknowledged QoS 1 and 2 PUBLISH packets that the client takes, and no more than this server sends.
    pub send_maximum: u16,
    /// Largest packet that the client takes, bytes.
    pub packet_bytes_max: u32,
    /// Topic Aliases that may be set towards the client. [MQTT-3.1.2-26]
    pub topic_aliases_sent_max: u16,
    /// The client asked, in so many words, to be told why. Where it says nothing it might be told too; but
    /// few clients look, and some compare. [MQTT-3.1.2-29]
    pub wants_reasons: bool,
    /// The client would like to be told where responses to it may go.
    pub request_response_information: bool,
    /// Granted; 0 ends the session with the connection, `u32::MAX` never ends it.
    pub session_expiry_seconds: u32,
    pub clean_start: bool,
    /// Unacknowledged QoS 1 and 2 PUBLISH packets that this server takes.
    pub receive_maximum: u16,
    /// Topic Aliases that the client may set.
    pub topic_alias_maximum: u16,
    /// Longest session expiry granted.
    pub session_expiry_seconds_max: u32,
    /// Of a client that signed in by enhanced authentication.
    pub authentication_method: Option<&'static str>,
    /// Largest packet that this server takes, bytes.
    server_packet_bytes_max: u32,
    /// What the client asked for was more than is granted.
    session_expiry_capped: bool,
    keep_alive_capped: bool,
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

/// How a client wants to sign in, where it does not do so by user name and password.
pub struct Authentication {
    pub method: String,
    pub data: Vec<u8>,
}

/// A CONNECT that obeys the specification; who it is has yet to be shown.
pub struct ConnectRequest {
    pub negotiated: Negotiated,
    pub authentication: Option<Authentication>,
    /// Empty: the server is to assign one.
    pub client_id: String,
    pub username: Option<String>,
    pub password: Option<Vec<u8>>,
    pub will: Option<Box<Will>>,
}

impl ConnectRequest {
    /// The reason code is for the CONNACK, after which the connection closes. [MQTT-3.1.4-2]
    pub fn accept(connect: &Connect<'_>, limits: &ClientLimits) -> Result<Self, ReasonCode> {
        let properties = connect.properties;
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
        let session_expiry_seconds = asked_expiry.min(limits.session_expiry_seconds_max);
        let keep_alive = keep_alive(connect, limits.keep_alive_seconds_max);
        let negotiated = Negotiated {
            version: connect.version,
            keep_alive,
            send_maximum: properties.receive_maximum().unwrap_or(u16::MAX).min(limits.inflight_max),
            packet_bytes_max: properties.maximum_packet_size().unwrap_or(u32::MAX),
            topic_aliases_sent_max: properties.topic_alias_maximum().unwrap_or(0).min(TOPIC_ALIASES_SENT_MAX),
            wants_reasons: properties.request_problem_information() == Some(true),
            request_response_information: properties.request_response_information().unwrap_or(false),
            session_expiry_seconds,
            clean_start: connect.clean_start,
            receive_maximum: limits.receive_maximum,
            topic_alias_maximum: limits.topic_alias_maximum,
            session_expiry_seconds_max: limits.session_expiry_seconds_max,
            authentication_method: None,
            server_packet_bytes_max: limits.packet_bytes_max,
            session_expiry_capped: session_expiry_seconds != asked_expiry,
            keep_alive_capped: keep_alive != connect.keep_alive,
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
        let authentication = properties.authentication_method().map(|method| Authentication {
            method: method.to_owned(),
            data: properties.authentication_data().unwrap_or_default().to_vec(),
        });
        Ok(Self {
            negotiated,
            authentication,
            client_id: connect.client_id.to_owned(),
            username: connect.username.map(str::to_owned),
            password: connect.password.map(<[u8]>::to_vec),
            will,
        })
    }
}

/// A version 5 client can be told of a Keep Alive other than it asked for; a 3.1.1 client cannot.
fn keep_alive(connect: &Connect<'_>, seconds_max: u16) -> u16 {
    let unlimited = connect.keep_alive == 0 || connect.keep_alive > seconds_max;
    if connect.version == Version::V5 && seconds_max > 0 && unlimited {
        seconds_max
    } else {
        connect.keep_alive
    }
}

/// What CONNACK says beside what was negotiated.
#[derive(Clone, Copy, Debug, Default)]
pub struct Welcome<'a> {
    pub session_present: bool,
    /// [MQTT-3.1.3-7]
    pub assigned_client_id: Option<&'a str>,
    /// The beginning of topics that are the client's own, for a client that asked. [MQTT-3.1.2-28]
    pub response_information: Option<&'a str>,
    /// The last of enhanced authentication; empty where there was none.
    pub authentication_data: &'a [u8],
    /// A User Property, where it does not make the packet too large. [MQTT-3.2.2-20]
    pub told: Option<(&'a str, &'a str)>,
}

impl Negotiated {
    /// CONNACK with Success, telling a version 5 client what this server does not follow by default. Nothing is
    /// written where the client takes no packet as large as that.
    pub fn accepted(&self, welcome: Welcome<'_>, out: &mut Vec<u8>) {
        let start = out.len();
        self.write_accepted(&welcome, out);
        if out.len() - start > self.packet_bytes_max as usize && welcome.told.is_some() {
            out.truncate(start);
            self.write_accepted(&Welcome { told: None, ..welcome }, out);
        }
        // [MQTT-3.1.2-24]
        if out.len() - start > self.packet_bytes_max as usize {
            out.truncate(start);
        }
    }

    fn write_accepted(&self, welcome: &Welcome<'_>, out: &mut Vec<u8>) {
        let mut properties = PropertyBuf::new();
        if self.version == Version::V5 {
            if self.session_expiry_capped {
                properties.push(Property::SessionExpiryInterval(self.session_expiry_seconds));
            }
            properties.push(Property::ReceiveMaximum(self.receive_maximum));
            properties.push(Property::MaximumPacketSize(self.server_packet_bytes_max));
            if self.topic_alias_maximum > 0 {
                properties.push(Property::TopicAliasMaximum(self.topic_alias_maximum));
            }
            if self.keep_alive_capped {
                // [MQTT-3.2.2-22]
                properties.push(Property::ServerKeepAlive(self.keep_alive));
            }
            if let Some(client_id) = welcome.assigned_client_id {
                properties.push(Property::AssignedClientIdentifier(client_id));
            }
            if let Some(information) =
                welcome.response_information.filter(|_| self.request_response_information)
            {
                properties.push(Property::ResponseInformation(information));
            }
            if let Some(method) = self.authentication_method {
                // [MQTT-4.12.0-5]
                properties.push(Property::AuthenticationMethod(method));
                if !welcome.authentication_data.is_empty() {
                    properties.push(Property::AuthenticationData(welcome.authentication_data));
                }
            }
            if let Some((name, value)) = welcome.told {
                properties.push(Property::UserProperty(name, value));
            }
        }
        let connack = ConnAck {
            session_present: welcome.session_present,
            reason: ReasonCode::Success,
            properties: properties.as_properties(),
        };
        Packet::ConnAck(connack).encode(self.version, out);
    }
}

/// AUTH from the server. [MQTT-4.12.0-2] [MQTT-4.12.0-5]
pub fn authenticate(method: &str, reason: ReasonCode, data: &[u8], out: &mut Vec<u8>) {
    let mut properties = PropertyBuf::new();
    properties.push(Property::AuthenticationMethod(method));
    if !data.is_empty() {
        properties.push(Property::AuthenticationData(data));
    }
    Packet::Auth(Auth { reason, properties: properties.as_properties() }).encode(Version::V5, out);
}

/// What a CONNACK with a failure says; all but the reason to version 5 clients alone.
#[derive(Clone, Copy, Debug)]
pub struct Refusal<'a> {
    pub reason: ReasonCode,
    pub server_reference: Option<&'a str>,
    /// A User Property, where it does not make the packet too large. [MQTT-3.2.2-20]
    pub told: Option<(&'a str, &'a str)>,
}

/// CONNACK with a failure; Session Present is 0. [MQTT-3.2.2-4] [MQTT-3.2.2-6]
pub fn refused(version: Version, refusal: Refusal<'_>, packet_bytes_max: u32, out: &mut Vec<u8>) {
    let start = out.len();
    write_refused(version, refusal, out);
    if out.len() - start > packet_bytes_max as usize {
        out.truncate(start);
        write_refused(version, Refusal { told: None, server_reference: None, ..refusal }, out);
    }
}

fn write_refused(version: Version, refusal: Refusal<'_>, out: &mut Vec<u8>) {
    let mut properties = PropertyBuf::new();
    if version == Version::V5 {
        if let Some(server) = refusal.server_reference {
            properties.push(Property::ServerReference(server));
        }
        if let Some((name, value)) = refusal.told {
            properties.push(Property::UserProperty(name, value));
        }
    }
    let connack =
        ConnAck { session_present: false, reason: refusal.reason, properties: properties.as_properties() };
    Packet::ConnAck(connack).encode(version, out);
}
