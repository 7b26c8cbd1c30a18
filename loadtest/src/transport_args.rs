//! The part of the command line that says how to reach the broker.

use std::path::PathBuf;

use clap::ValueEnum;

use crate::template::Template;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct TransportArgs {
    /// The broker; of several, separated by commas, client i takes the i-th in turn
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8883", value_delimiter = ',')]
    pub(crate) addr: Vec<String>,
    /// Certificates (PEM) of the authorities that may have signed the broker's
    #[arg(long, value_name = "FILE", default_value = "sotto-data/ca.crt")]
    pub(crate) ca: PathBuf,
    /// TCP without TLS
    #[arg(long)]
    pub(crate) plain: bool,
    /// MQTT over WebSocket; with --plain without TLS
    #[arg(long, alias = "wss")]
    pub(crate) ws: bool,
    /// Path of the WebSocket
    #[arg(long, value_name = "PATH", default_value = "/mqtt", requires = "ws", value_parser = parse_path)]
    pub(crate) ws_path: String,
    /// Name or address that the broker's certificate must bear [default: the host of --addr]
    #[arg(long, value_name = "NAME", conflicts_with = "plain")]
    pub(crate) server_name: Option<String>,
    /// The only TLS version offered [default: both]
    #[arg(long, value_enum, conflicts_with = "plain")]
    pub(crate) tls_version: Option<TlsVersion>,
    /// The only cipher suites offered, by their names, separated by commas
    #[arg(long, value_name = "SUITES", value_delimiter = ',', conflicts_with = "plain")]
    pub(crate) ciphers: Vec<String>,
    /// Certificate chain (PEM) that clients show: %i and %r as in --client-id
    #[arg(long, value_name = "FILE", requires = "key", conflicts_with = "plain")]
    pub(crate) cert: Option<Template>,
    /// Private key (PEM) of --cert: %i and %r as in --client-id
    #[arg(long, value_name = "FILE", requires = "cert", conflicts_with = "plain")]
    pub(crate) key: Option<Template>,
    /// Share of connections, 0 to 1, that offer a TLS ticket which an earlier one has left
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = parse_share, conflicts_with = "plain")]
    pub(crate) resume: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TlsVersion {
    #[value(name = "1.2")]
    V1_2,
    #[value(name = "1.3")]
    V1_3,
}

fn parse_share(raw: &str) -> Result<f64, &'static str> {
    match raw.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("a share is a number from 0 to 1"),
    }
}

fn parse_path(raw: &str) -> Result<String, &'static str> {
    let fits = raw.starts_with('/') && raw.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(raw.to_owned()) } else { Err("a path begins with / and has neither spaces nor line ends") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_cannot_smuggle_a_header_into_the_request() {
        assert!(parse_path("/mqtt?token=a").is_ok());
        for bad in ["", "mqtt", "/a b", "/a\r\nX: y", "/ä"] {
            assert!(parse_path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_share_lies_between_none_and_all() {
        assert_eq!(parse_share("0.25"), Ok(0.25));
        for bad in ["-0.1", "1.1", "nan", "half"] {
            assert!(parse_share(bad).is_err(), "{bad}");
        }
    }
}
