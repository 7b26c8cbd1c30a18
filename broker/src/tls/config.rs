//! What the listener offers: TLS 1.3 and 1.2, X25519 first, AEAD and ECDHE suites only, stateless tickets.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::tls::lean_aead::lean;

#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsConfigError {
    #[error("read the certificate file {path}: {reason}")]
    Certificate { path: String, reason: PemFault },
    #[error("read the private key file {path}: {reason}")]
    Key { path: String, reason: PemFault },
    #[error("certificate and private key do not fit: {0}")]
    Mismatch(rustls::Error),
    #[error("set up TLS: {0}")]
    Setup(rustls::Error),
}

/// The parser's own errors may quote what they found, and it may be a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PemFault {
    #[error("{0}")]
    File(std::io::ErrorKind),
    #[error("holds none")]
    Empty,
    #[error("not PEM")]
    NotPem,
}

/// One session ticket a handshake: a phone resumes one connection at a time.
const TICKETS_PER_HANDSHAKE: usize = 1;

pub(crate) fn server_config(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsConfigError> {
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| PemFault::of(&error))
        .and_then(|chain| if chain.is_empty() { Err(PemFault::Empty) } else { Ok(chain) })
        .map_err(|reason| TlsConfigError::Certificate { path: certificate.display().to_string(), reason })?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| TlsConfigError::Key {
        path: key.display().to_string(),
        reason: PemFault::of(&error),
    })?;

    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(TlsConfigError::Setup)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(TlsConfigError::Mismatch)?;
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(TlsConfigError::Setup)?;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = TICKETS_PER_HANDSHAKE;
    config.max_early_data_size = 0;
    // Our order: the cheapest a record first.
    config.ignore_client_order = true;
    Ok(Arc::new(config))
}

impl PemFault {
    fn of(error: &pem::Error) -> Self {
        match error {
            pem::Error::Io(error) => Self::File(error.kind()),
            pem::Error::NoItemsFound => Self::Empty,
            _ => Self::NotPem,
        }
    }
}

fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    // TLS 1.3 AES-128-GCM first: the cheapest a record, and the strongest suite that a phone needs.
    provider.cipher_suites = [
        aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
        aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
        aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        aws_lc_rs::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        aws_lc_rs::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        aws_lc_rs::cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        aws_lc_rs::cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        aws_lc_rs::cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        aws_lc_rs::cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ]
    .into_iter()
    .map(lean)
    .collect();
    provider.kx_groups =
        vec![aws_lc_rs::kx_group::X25519, aws_lc_rs::kx_group::SECP256R1, aws_lc_rs::kx_group::SECP384R1];
    provider
}
