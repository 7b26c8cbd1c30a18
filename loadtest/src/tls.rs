//! TLS as a phone speaks it: the broker's certificate is always checked.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

#[derive(Clone)]
pub(crate) struct Tls {
    pub(crate) connector: TlsConnector,
    pub(crate) server_name: ServerName<'static>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("certificate authority `{0}` cannot be read: {1}")]
    CaUnreadable(PathBuf, pem::Error),
    #[error("`{0}` holds no certificate")]
    CaEmpty(PathBuf),
    #[error("`{0}` holds something that cannot sign certificates: {1}")]
    CaUnusable(PathBuf, rustls::Error),
    #[error("`{0}` is no server name")]
    ServerName(String),
}

impl Tls {
    pub(crate) fn load(ca: &Path, server_name: &str) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        let unreadable = |error| TlsError::CaUnreadable(ca.to_owned(), error);
        for certificate in CertificateDer::pem_file_iter(ca).map_err(unreadable)? {
            let added = roots.add(certificate.map_err(unreadable)?);
            added.map_err(|error| TlsError::CaUnusable(ca.to_owned(), error))?;
        }
        if roots.is_empty() {
            return Err(TlsError::CaEmpty(ca.to_owned()));
        }
        let server_name = ServerName::try_from(server_name.to_owned())
            .map_err(|_| TlsError::ServerName(server_name.to_owned()))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has suites for TLS 1.2 and 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        // Every connection is a full handshake, as from phones that meet the broker for the first time.
        config.resumption = Resumption::disabled();
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), server_name })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_without_a_certificate_is_refused() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), "no PEM").expect("written");
        assert!(matches!(Tls::load(file.path(), "localhost"), Err(TlsError::CaEmpty(_))));
        assert!(matches!(
            Tls::load(Path::new("/nonexistent/ca.pem"), "localhost"),
            Err(TlsError::CaUnreadable(..))
        ));
    }

    #[test]
    fn an_address_is_a_server_name_too() {
        let ca = rcgen::generate_simple_self_signed(vec!["localhost".into()]).expect("a certificate");
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), ca.cert.pem()).expect("written");
        assert!(Tls::load(file.path(), "127.0.0.1").is_ok());
        assert!(Tls::load(file.path(), "no name").is_err());
    }
}
