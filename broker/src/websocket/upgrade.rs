//! The HTTP request that becomes a WebSocket, and its answer. RFC 6455, 4.2

use tungstenite::error::ProtocolError;
use tungstenite::handshake::machine::TryParse;
use tungstenite::handshake::server::{Request, Response, create_response, write_response};
use tungstenite::http::header::{
    ALLOW, CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use tungstenite::http::{HeaderValue, StatusCode};

const PATH: &str = "/mqtt";
/// [MQTT-6.0.0-3]
const SUBPROTOCOL: &str = "mqtt";
/// RFC 6455, 4.1
const VERSION: &str = "13";
/// Longest request accepted, bytes: a browser sends what cookies it has for the host.
pub(crate) const REQUEST_BYTES_MAX: usize = 8 * 1024;

/// Why a request does not become a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UpgradeRefusal {
    #[error("not a request of HTTP/1.1")]
    NotHttp,
    #[error("a request of more than {REQUEST_BYTES_MAX} bytes")]
    TooLong,
    #[error("a method other than GET")]
    Method,
    #[error("a path other than {PATH}")]
    Path,
    #[error("no upgrade to WebSocket, version {VERSION}")]
    NoUpgrade,
    #[error("no valid Sec-WebSocket-Key")]
    Key,
    #[error("the subprotocol {SUBPROTOCOL} is not among those offered")]
    Subprotocol,
}

/// The length of the request at the front of `input`, or `None` while it is incomplete. The answer is
/// appended to `answer`, also to a request that is refused.
pub(crate) fn upgrade(input: &[u8], answer: &mut Vec<u8>) -> Result<Option<usize>, UpgradeRefusal> {
    let accepted = accept(input);
    let response = match &accepted {
        Ok(None) => return Ok(None),
        Ok(Some((_, response))) => response,
        Err(refusal) => &refusal.response(),
    };
    write_response(answer, response).expect("a vector takes all, and the headers are ours");
    accepted.map(|accepted| accepted.map(|(len, _)| len))
}

fn accept(input: &[u8]) -> Result<Option<(usize, Response)>, UpgradeRefusal> {
    let within = &input[..input.len().min(REQUEST_BYTES_MAX)];
    let Some((len, request)) = Request::try_parse(within).map_err(|error| refusal(&error))? else {
        return if input.len() < REQUEST_BYTES_MAX { Ok(None) } else { Err(UpgradeRefusal::TooLong) };
    };
    if request.uri().path() != PATH {
        return Err(UpgradeRefusal::Path);
    }
    let mut response = create_response(&request).map_err(|error| refusal(&error))?;
    if !offers_mqtt(&request) {
        return Err(UpgradeRefusal::Subprotocol);
    }
    // [MQTT-6.0.0-4]
    response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    Ok(Some((len, response)))
}

/// [MQTT-6.0.0-3]
fn offers_mqtt(request: &Request) -> bool {
    let offers = request.headers().get_all(SEC_WEBSOCKET_PROTOCOL);
    offers
        .into_iter()
        .filter_map(|offer| offer.to_str().ok())
        .any(|offer| offer.split(',').any(|name| name.trim() == SUBPROTOCOL))
}

fn refusal(error: &tungstenite::Error) -> UpgradeRefusal {
    let tungstenite::Error::Protocol(error) = error else { return UpgradeRefusal::NotHttp };
    match error {
        ProtocolError::WrongHttpMethod => UpgradeRefusal::Method,
        ProtocolError::MissingConnectionUpgradeHeader
        | ProtocolError::MissingUpgradeWebSocketHeader
        | ProtocolError::MissingSecWebSocketVersionHeader => UpgradeRefusal::NoUpgrade,
        ProtocolError::MissingSecWebSocketKey | ProtocolError::InvalidSecWebSocketKey => UpgradeRefusal::Key,
        _ => UpgradeRefusal::NotHttp,
    }
}

impl UpgradeRefusal {
    fn response(self) -> Response {
        let mut response = Response::new(());
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        match self {
            Self::NoUpgrade => {
                headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static(VERSION));
            }
            Self::Method => {
                headers.insert(ALLOW, HeaderValue::from_static("GET"));
            }
            Self::NotHttp | Self::TooLong | Self::Path | Self::Key | Self::Subprotocol => {}
        }
        response
    }

    fn status(self) -> StatusCode {
        match self {
            Self::NotHttp | Self::Key | Self::Subprotocol => StatusCode::BAD_REQUEST,
            Self::TooLong => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Path => StatusCode::NOT_FOUND,
            Self::NoUpgrade => StatusCode::UPGRADE_REQUIRED,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\n\
        Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Protocol: mqttv3.1, mqtt\r\n\r\n";

    fn answer(request: &str) -> (Result<Option<usize>, UpgradeRefusal>, String) {
        let mut answer = Vec::new();
        let upgraded = upgrade(request.as_bytes(), &mut answer);
        (upgraded, String::from_utf8(answer).expect("ASCII"))
    }

    #[test]
    fn a_good_request_is_answered_with_its_key_and_the_subprotocol() {
        let (upgraded, answer) = answer(&format!("{GOOD}frames"));
        assert_eq!(upgraded, Ok(Some(GOOD.len())));
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        let answer = answer.to_ascii_lowercase();
        // The example of RFC 6455, 1.3.
        assert!(answer.contains("\r\nsec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{answer}");
        assert!(answer.contains("\r\nsec-websocket-protocol: mqtt\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    }

    #[test]
    fn a_request_is_waited_for_to_its_last_byte() {
        for len in 0..GOOD.len() {
            assert_eq!(answer(&GOOD[..len]), (Ok(None), String::new()), "{len} bytes");
        }
    }

    #[test]
    fn what_is_wrong_is_told_by_the_status() {
        let without = |header: &str| {
            GOOD.split_inclusive("\r\n").filter(|line| !line.starts_with(header)).collect::<String>()
        };
        for (request, refusal, status) in [
            (GOOD.replace("/mqtt", "/"), UpgradeRefusal::Path, "404"),
            (GOOD.replace("/mqtt", "/mqtt/more"), UpgradeRefusal::Path, "404"),
            (GOOD.replace("GET", "POST"), UpgradeRefusal::Method, "405"),
            (GOOD.replace("HTTP/1.1", "HTTP/1.0"), UpgradeRefusal::NotHttp, "400"),
            (without("Upgrade"), UpgradeRefusal::NoUpgrade, "426"),
            (without("Connection"), UpgradeRefusal::NoUpgrade, "426"),
            (GOOD.replace(": 13", ": 8"), UpgradeRefusal::NoUpgrade, "426"),
            (without("Sec-WebSocket-Key"), UpgradeRefusal::Key, "400"),
            (GOOD.replace("dGhl", "dG"), UpgradeRefusal::Key, "400"),
            (without("Sec-WebSocket-Protocol"), UpgradeRefusal::Subprotocol, "400"),
            (GOOD.replace("mqttv3.1, mqtt", "mqttv3.1, MQTT"), UpgradeRefusal::Subprotocol, "400"),
            ("\u{10}\u{0}garbage\r\n\r\n".to_owned(), UpgradeRefusal::NotHttp, "400"),
            (format!("GET /mqtt HTTP/1.1\r\n{}", "a: b\r\n".repeat(500)), UpgradeRefusal::NotHttp, "400"),
            (
                format!("GET /mqtt HTTP/1.1\r\nCookie: {}\r\n\r\n", "x".repeat(REQUEST_BYTES_MAX)),
                UpgradeRefusal::TooLong,
                "431",
            ),
        ] {
            let (upgraded, answer) = answer(&request);
            assert_eq!(upgraded, Err(refusal), "{request}");
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
            assert!(answer.ends_with("\r\n\r\n") && answer.contains("connection: close\r\n"), "{answer}");
            let upgrade = answer.contains("upgrade: websocket\r\nsec-websocket-version: 13\r\n");
            assert_eq!(upgrade, status == "426", "{answer}");
        }
    }

    #[test]
    fn a_query_and_a_second_header_of_subprotocols_do_no_harm() {
        let request = GOOD
            .replace("/mqtt", "/mqtt?from=page")
            .replace("mqttv3.1, mqtt", "wamp\r\nSec-WebSocket-Protocol: mqtt");
        assert!(matches!(answer(&request).0, Ok(Some(_))));
    }
}
