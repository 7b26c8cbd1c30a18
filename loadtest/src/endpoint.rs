//! The broker's address.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    /// As given, without the port and without brackets.
    pub(crate) host: String,
    /// As given.
    pub(crate) authority: String,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum EndpointError {
    #[error("`{0}` is not HOST:PORT")]
    Malformed(String),
    #[error("host of `{0}` is not known: {1}")]
    Unknown(String, io::Error),
}

impl Endpoint {
    pub(crate) fn resolve(raw: &str) -> Result<Self, EndpointError> {
        let malformed = || EndpointError::Malformed(raw.to_owned());
        let (host, port) = raw.rsplit_once(':').ok_or_else(malformed)?;
        let port: u16 = port.parse().map_err(|_| malformed())?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() || port == 0 {
            return Err(malformed());
        }
        let mut addresses =
            (host, port).to_socket_addrs().map_err(|error| EndpointError::Unknown(raw.to_owned(), error))?;
        let address = addresses.next().ok_or_else(malformed)?;
        Ok(Self { address, host: host.to_owned(), authority: raw.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_host_and_a_port() {
        let endpoint = Endpoint::resolve("127.0.0.1:8883").expect("an endpoint");
        assert_eq!(endpoint.address, "127.0.0.1:8883".parse().expect("an address"));
        assert_eq!(Endpoint::resolve("[::1]:1").expect("an endpoint").host, "::1");
        for bad in ["", "localhost", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:70000", ":8883"] {
            assert!(matches!(Endpoint::resolve(bad), Err(EndpointError::Malformed(_))), "{bad}");
        }
    }
}
