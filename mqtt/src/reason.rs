//! Reason Codes: MQTT 5 Table 2-6, and what becomes of them in 3.1.1.

use crate::codec::packet_type::PacketType;

const CONNACK: u16 = PacketType::ConnAck.bit();
const PUBACK: u16 = PacketType::PubAck.bit();
const PUBREC: u16 = PacketType::PubRec.bit();
const PUBREL: u16 = PacketType::PubRel.bit();
const PUBCOMP: u16 = PacketType::PubComp.bit();
const SUBACK: u16 = PacketType::SubAck.bit();
const UNSUBACK: u16 = PacketType::UnsubAck.bit();
const DISCONNECT: u16 = PacketType::Disconnect.bit();
const AUTH: u16 = PacketType::Auth.bit();

reason_codes! {
    // Granted QoS 0 and Normal disconnection are the same byte.
    Success = 0x00, "success",
        CONNACK | PUBACK | PUBREC | PUBREL | PUBCOMP | SUBACK | UNSUBACK | DISCONNECT | AUTH;
    GrantedQoS1 = 0x01, "granted_qos_1", SUBACK;
    GrantedQoS2 = 0x02, "granted_qos_2", SUBACK;
    DisconnectWithWillMessage = 0x04, "disconnect_with_will_message", DISCONNECT;
    NoMatchingSubscribers = 0x10, "no_matching_subscribers", PUBACK | PUBREC;
    NoSubscriptionExisted = 0x11, "no_subscription_existed", UNSUBACK;
    ContinueAuthentication = 0x18, "continue_authentication", AUTH;
    ReAuthenticate = 0x19, "re_authenticate", AUTH;
    UnspecifiedError = 0x80, "unspecified_error",
        CONNACK | PUBACK | PUBREC | SUBACK | UNSUBACK | DISCONNECT;
    MalformedPacket = 0x81, "malformed_packet", CONNACK | DISCONNECT;
    ProtocolError = 0x82, "protocol_error", CONNACK | DISCONNECT;
    ImplementationSpecificError = 0x83, "implementation_specific_error",
        CONNACK | PUBACK | PUBREC | SUBACK | UNSUBACK | DISCONNECT;
    UnsupportedProtocolVersion = 0x84, "unsupported_protocol_version", CONNACK;
    ClientIdentifierNotValid = 0x85, "client_identifier_not_valid", CONNACK;
    BadUserNameOrPassword = 0x86, "bad_user_name_or_password", CONNACK;
    NotAuthorized = 0x87, "not_authorized", CONNACK | PUBACK | PUBREC | SUBACK | UNSUBACK | DISCONNECT;
    ServerUnavailable = 0x88, "server_unavailable", CONNACK;
    ServerBusy = 0x89, "server_busy", CONNACK | DISCONNECT;
    Banned = 0x8A, "banned", CONNACK;
    ServerShuttingDown = 0x8B, "server_shutting_down", DISCONNECT;
    BadAuthenticationMethod = 0x8C, "bad_authentication_method", CONNACK | DISCONNECT;
    KeepAliveTimeout = 0x8D, "keep_alive_timeout", DISCONNECT;
    SessionTakenOver = 0x8E, "session_taken_over", DISCONNECT;
    TopicFilterInvalid = 0x8F, "topic_filter_invalid", SUBACK | UNSUBACK | DISCONNECT;
    TopicNameInvalid = 0x90, "topic_name_invalid", CONNACK | PUBACK | PUBREC | DISCONNECT;
    PacketIdentifierInUse = 0x91, "packet_identifier_in_use", PUBACK | PUBREC | SUBACK | UNSUBACK;
    PacketIdentifierNotFound = 0x92, "packet_identifier_not_found", PUBREL | PUBCOMP;
    ReceiveMaximumExceeded = 0x93, "receive_maximum_exceeded", DISCONNECT;
    TopicAliasInvalid = 0x94, "topic_alias_invalid", DISCONNECT;
    PacketTooLarge = 0x95, "packet_too_large", CONNACK | DISCONNECT;
    MessageRateTooHigh = 0x96, "message_rate_too_high", DISCONNECT;
    QuotaExceeded = 0x97, "quota_exceeded", CONNACK | PUBACK | PUBREC | SUBACK | DISCONNECT;
    AdministrativeAction = 0x98, "administrative_action", DISCONNECT;
    PayloadFormatInvalid = 0x99, "payload_format_invalid", CONNACK | PUBACK | PUBREC | DISCONNECT;
    RetainNotSupported = 0x9A, "retain_not_supported", CONNACK | DISCONNECT;
    QoSNotSupported = 0x9B, "qos_not_supported", CONNACK | DISCONNECT;
    UseAnotherServer = 0x9C, "use_another_server", CONNACK | DISCONNECT;
    ServerMoved = 0x9D, "server_moved", CONNACK | DISCONNECT;
    SharedSubscriptionsNotSupported = 0x9E, "shared_subscriptions_not_supported", SUBACK | DISCONNECT;
    ConnectionRateExceeded = 0x9F, "connection_rate_exceeded", CONNACK | DISCONNECT;
    MaximumConnectTime = 0xA0, "maximum_connect_time", DISCONNECT;
    SubscriptionIdentifiersNotSupported = 0xA1, "subscription_identifiers_not_supported",
        SUBACK | DISCONNECT;
    WildcardSubscriptionsNotSupported = 0xA2, "wildcard_subscriptions_not_supported", SUBACK | DISCONNECT;
}

impl ReasonCode {
    pub fn code(self) -> u8 {
        self as u8
    }

    pub fn is_error(self) -> bool {
        self.code() >= 0x80
    }

    /// Whether Table 2-6 lets this packet carry it.
    pub fn is_used_in(self, packet_type: PacketType) -> bool {
        self.carriers() & packet_type.bit() != 0
    }

    /// The nearest Connect Return Code of 3.1.1.
    pub fn connect_return_code(self) -> u8 {
        match self {
            Self::UnsupportedProtocolVersion => 1,
            Self::ClientIdentifierNotValid => 2,
            Self::BadUserNameOrPassword | Self::BadAuthenticationMethod => 4,
            Self::NotAuthorized | Self::Banned => 5,
            reason if reason.is_error() => 3,
            _ => 0,
        }
    }

    /// `None` for the return codes that 3.1.1 reserves.
    pub fn from_connect_return_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Success),
            1 => Some(Self::UnsupportedProtocolVersion),
            2 => Some(Self::ClientIdentifierNotValid),
            3 => Some(Self::ServerUnavailable),
            4 => Some(Self::BadUserNameOrPassword),
            5 => Some(Self::NotAuthorized),
            _ => None,
        }
    }
}

macro_rules! reason_codes {
    ($($name:ident = $code:literal, $label:literal, $carriers:expr;)+) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum ReasonCode {
            $($name = $code,)+
        }

        impl ReasonCode {
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            pub fn from_u8(code: u8) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)+
                    _ => None,
                }
            }

            /// Snake case, for metrics labels.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)+
                }
            }

            /// The set of packet types that carry it.
            fn carriers(self) -> u16 {
                match self {
                    $(Self::$name => $carriers,)+
                }
            }
        }
    };
}
use reason_codes;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_found_by_its_own_byte_and_has_a_carrier() {
        for &reason in ReasonCode::ALL {
            assert_eq!(ReasonCode::from_u8(reason.code()), Some(reason));
            assert!(PacketType::ALL.iter().any(|&carrier| reason.is_used_in(carrier)));
        }
        assert_eq!((0..=u8::MAX).filter_map(ReasonCode::from_u8).count(), 43);
    }

    #[test]
    fn every_3_1_1_return_code_survives_the_way_there_and_back() {
        for code in 0..=5 {
            let reason = ReasonCode::from_connect_return_code(code).expect("defined by 3.1.1");
            assert_eq!(reason.connect_return_code(), code);
        }
        assert_eq!(ReasonCode::from_connect_return_code(6), None);
    }

    #[test]
    fn a_refusal_is_never_a_3_1_1_success() {
        for &reason in ReasonCode::ALL {
            assert_eq!(reason.is_error(), reason.connect_return_code() != 0, "{}", reason.as_str());
        }
    }
}
