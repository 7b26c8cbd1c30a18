//! The URL at which a device is to be woken: supplied by its user, and never trusted.

use std::fmt;
use std::net::IpAddr;

use reqwest::Url;

use crate::limits::ENDPOINT_BYTES_MAX;

/// An absolute `https` URL without user name, password or fragment. It names a device, so it cannot be
/// shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint(Url);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    #[error("push endpoint is longer than {ENDPOINT_BYTES_MAX} bytes")]
    TooLong,
    #[error("push endpoint is not a URL")]
    NotAUrl,
    #[error("push endpoint is not https")]
    NotHttps,
    #[error("push endpoint holds a user name or password")]
    Credentials,
    #[error("push endpoint holds a fragment")]
    Fragment,
}

impl Endpoint {
    pub fn parse(raw: &str) -> Result<Self, EndpointError> {
        if raw.len() > ENDPOINT_BYTES_MAX {
            return Err(EndpointError::TooLong);
        }
        // The URL parser would drop these silently, and two spellings would be one endpoint.
        if raw.contains(|c: char| c.is_control() || c.is_whitespace() || c == '\\') {
            return Err(EndpointError::NotAUrl);
        }
        let url = Url::parse(raw).map_err(|_| EndpointError::NotAUrl)?;
        if url.scheme() != "https" {
            return Err(EndpointError::NotHttps);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(EndpointError::Credentials);
        }
        if url.fragment().is_some() {
            return Err(EndpointError::Fragment);
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(EndpointError::NotAUrl);
        }
        Ok(Self(url))
    }

    /// As it is stored, sealed: parsing it gives the same endpoint.
    pub fn reveal(&self) -> &str {
        self.0.as_str()
    }

    /// Scheme, host and port: the push service, and none of its devices.
    pub(crate) fn origin(&self) -> String {
        self.0.origin().ascii_serialization()
    }

    pub(crate) fn url(&self) -> &Url {
        &self.0
    }

    /// The address, where the host is one and not a name.
    pub(crate) fn literal_address(&self) -> Option<IpAddr> {
        self.0.host_str()?.trim_start_matches('[').trim_end_matches(']').parse().ok()
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Endpoint(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_https_without_credentials_or_fragment() {
        for good in ["https://push.example/UP?id=1", "https://push.example:8443/", "https://[2001:db8::1]/x"]
        {
            let endpoint = Endpoint::parse(good).expect("endpoint");
            assert_eq!(Endpoint::parse(endpoint.reveal()), Ok(endpoint));
        }
        for (bad, error) in [
            ("http://push.example/", EndpointError::NotHttps),
            ("file:///etc/passwd", EndpointError::NotHttps),
            ("https://", EndpointError::NotAUrl),
            ("push.example", EndpointError::NotAUrl),
            ("", EndpointError::NotAUrl),
            ("https://push.example/\r\nX: y", EndpointError::NotAUrl),
            ("https:\\\\push.example\\x", EndpointError::NotAUrl),
            ("https://a:b@push.example/", EndpointError::Credentials),
            ("https://a@push.example/", EndpointError::Credentials),
            ("https://push.example/#f", EndpointError::Fragment),
            (&format!("https://push.example/{}", "x".repeat(ENDPOINT_BYTES_MAX)), EndpointError::TooLong),
        ] {
            assert_eq!(Endpoint::parse(bad), Err(error), "{bad}");
        }
    }

    #[test]
    fn every_spelling_of_an_address_is_an_address() {
        for raw in ["https://127.0.0.1/", "https://0x7f.1/", "https://2130706433/", "https://0177.0.0.1/"] {
            let endpoint = Endpoint::parse(raw).expect("endpoint");
            assert_eq!(endpoint.literal_address(), Some(IpAddr::from([127, 0, 0, 1])), "{raw}");
        }
        let endpoint = Endpoint::parse("https://[::ffff:127.0.0.1]/").expect("endpoint");
        assert!(endpoint.literal_address().is_some());
        assert_eq!(Endpoint::parse("https://push.example/").expect("endpoint").literal_address(), None);
    }

    #[test]
    fn the_origin_names_no_device() {
        let origin = |raw: &str| Endpoint::parse(raw).expect("endpoint").origin();
        assert_eq!(origin("https://Push.example:443/a?b=c"), "https://push.example");
        assert_eq!(origin("https://push.example:8443/a"), "https://push.example:8443");
    }

    #[test]
    fn an_endpoint_is_not_shown() {
        let endpoint = Endpoint::parse("https://push.example/secret").expect("endpoint");
        assert_eq!(format!("{endpoint:?}"), "Endpoint(..)");
    }
}
