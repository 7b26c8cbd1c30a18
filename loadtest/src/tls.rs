//! TLS as a phone speaks it: the broker's certificate is always checked.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore};

use crate::template::{Place, Template};
use crate::tickets::Tickets;
use crate::transport_args::{TlsVersion, TransportArgs};

pub(crate) struct Tls {
    /// Every connection a full handshake, as from phones that meet the broker for the first time.
    full: Arc<ClientConfig>,
    /// Offers a ticket where there is one.
    resuming: Arc<ClientConfig>,
    /// Share of connections that offer one.
    resume: f64,
    /// A certificate for each client, read when it connects.
    identities: Option<Identities>,
}

#[derive(Debug)]
struct Identities {
    cert: Template,
    key: Template,
    provider: Arc<CryptoProvider>,
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
    #[error("cipher suite `{0}` is not known; known are {1}")]
    UnknownCipher(String, String),
    #[error("--tls-version and --ciphers leave nothing to offer: {0}")]
    NothingToOffer(rustls::Error),
    #[error("certificate or key `{0}` cannot be read: {1}")]
    IdentityUnreadable(PathBuf, pem::Error),
    #[error("`{0}` and its key do not belong together or cannot be used: {1}")]
    IdentityUnusable(PathBuf, rustls::Error),
    #[error("--resume needs one certificate for all clients: a ticket stands for whom it was given to")]
    ResumeWithIdentities,
}

impl Tls {
    pub(crate) fn load(args: &TransportArgs) -> Result<Self, TlsError> {
        let provider = Arc::new(provider(&args.ciphers)?);
        let versions = match args.tls_version {
            None => &[&TLS13, &TLS12][..],
            Some(TlsVersion::V1_2) => &[&TLS12],
            Some(TlsVersion::V1_3) => &[&TLS13],
        };
        let roots = Arc::new(roots(&args.ca)?);
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider));
        let verifier = verifier.build().expect("there is an authority, and no revocation list");
        let mut full = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .map_err(TlsError::NothingToOffer)?
            .with_webpki_verifier(verifier)
            .with_no_client_auth();
        full.enable_secret_extraction = true;
        let mut identities = None;
        if let Some((cert, key)) = args.cert.clone().zip(args.key.clone()) {
            let given = Identities { cert, key, provider };
            if given.is_one_for_all() {
                full.client_auth_cert_resolver = Arc::new(given.load(Place::default())?);
            } else if args.resume > 0.0 {
                return Err(TlsError::ResumeWithIdentities);
            } else {
                identities = Some(given);
            }
        }
        let mut resuming = full.clone();
        if args.resume > 0.0 {
            let (offering, keeping) = Tickets::offering_and_keeping();
            full.resumption = Resumption::store(Arc::new(keeping));
            resuming.resumption = Resumption::store(Arc::new(offering));
        } else {
            full.resumption = Resumption::disabled();
        }
        Ok(Self { full: Arc::new(full), resuming: Arc::new(resuming), resume: args.resume, identities })
    }

    /// Nothing is lost where tickets are of no use.
    pub(crate) fn may_be_lean(&self) -> bool {
        self.resume == 0.0
    }

    /// For one connection of a client.
    pub(crate) fn config(&self, client: Place<'_>) -> Result<Arc<ClientConfig>, TlsError> {
        if let Some(identities) = &self.identities {
            let mut config = ClientConfig::clone(&self.full);
            config.client_auth_cert_resolver = Arc::new(identities.load(client)?);
            return Ok(Arc::new(config));
        }
        let resumes = self.resume > 0.0 && rand::random::<f64>() < self.resume;
        Ok(Arc::clone(if resumes { &self.resuming } else { &self.full }))
    }
}

pub(crate) fn server_name(name: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(name.to_owned()).map_err(|_| TlsError::ServerName(name.to_owned()))
}

impl Identities {
    fn is_one_for_all(&self) -> bool {
        self.cert.is_constant() && self.key.is_constant()
    }

    fn load(&self, client: Place<'_>) -> Result<SingleCertAndKey, TlsError> {
        let (cert, key) = (PathBuf::from(self.cert.expand(client)), PathBuf::from(self.key.expand(client)));
        let unreadable = |error| TlsError::IdentityUnreadable(cert.clone(), error);
        let chain = CertificateDer::pem_file_iter(&cert).map_err(unreadable)?;
        let chain = chain.collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
        let private = PrivateKeyDer::from_pem_file(&key)
            .map_err(|error| TlsError::IdentityUnreadable(key.clone(), error))?;
        let certified = CertifiedKey::from_der(chain, private, &self.provider);
        certified.map(SingleCertAndKey::from).map_err(|error| TlsError::IdentityUnusable(cert, error))
    }
}

fn roots(ca: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let unreadable = |error| TlsError::CaUnreadable(ca.to_owned(), error);
    for certificate in CertificateDer::pem_file_iter(ca).map_err(unreadable)? {
        let added = roots.add(certificate.map_err(unreadable)?);
        added.map_err(|error| TlsError::CaUnusable(ca.to_owned(), error))?;
    }
    if roots.is_empty() { Err(TlsError::CaEmpty(ca.to_owned())) } else { Ok(roots) }
}

/// The suites of the default provider, or of them those that are named: by rustls' names or by IANA's.
fn provider(ciphers: &[String]) -> Result<CryptoProvider, TlsError> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    if ciphers.is_empty() {
        return Ok(provider);
    }
    let name = |suite: &rustls::SupportedCipherSuite| suite.suite().as_str().unwrap_or_default();
    let known: Vec<_> = provider.cipher_suites.iter().map(name).collect();
    let known = known.join(", ");
    let find = |wanted: &String| {
        let wanted_name = wanted.trim().to_ascii_uppercase();
        let found = provider.cipher_suites.iter().find(|suite| {
            name(suite) == wanted_name || name(suite).replacen("TLS13_", "TLS_", 1) == wanted_name
        });
        found.copied().ok_or_else(|| TlsError::UnknownCipher(wanted.clone(), known.clone()))
    };
    let suites = ciphers.iter().map(find).collect::<Result<_, _>>()?;
    provider.cipher_suites = suites;
    Ok(provider)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        transport: TransportArgs,
    }

    fn authority() -> tempfile::NamedTempFile {
        let ca = rcgen::generate_simple_self_signed(vec!["localhost".into()]).expect("a certificate");
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), ca.cert.pem()).expect("written");
        file
    }

    fn load(ca: &Path, more: &[&str]) -> Result<Tls, TlsError> {
        let mut line = vec!["x", "--ca", ca.to_str().expect("UTF-8")];
        line.extend(more);
        Tls::load(&Line::try_parse_from(line).expect("arguments").transport)
    }

    #[test]
    fn a_file_without_a_certificate_is_refused() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), "no PEM").expect("written");
        assert!(matches!(load(file.path(), &[]), Err(TlsError::CaEmpty(_))));
        assert!(matches!(load(Path::new("/nonexistent/ca.pem"), &[]), Err(TlsError::CaUnreadable(..))));
    }

    #[test]
    fn an_address_is_a_server_name_too() {
        assert!(server_name("127.0.0.1").is_ok());
        assert!(server_name("no name").is_err());
    }

    #[test]
    fn suites_are_named_as_iana_or_rustls_do_and_a_wrong_name_is_answered_with_the_right_ones() {
        let ca = authority();
        for name in ["TLS13_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256", "tls_aes_128_gcm_sha256"] {
            let tls = load(ca.path(), &["--ciphers", name]).expect("a suite");
            assert_eq!(tls.full.crypto_provider().cipher_suites.len(), 1, "{name}");
        }
        let error = load(ca.path(), &["--ciphers", "RC4"]).err().expect("unknown").to_string();
        assert!(error.contains("`RC4`") && error.contains("TLS13_AES_256_GCM_SHA384"), "{error}");
    }

    #[test]
    fn a_version_without_a_suite_for_it_is_refused_before_the_run() {
        let ca = authority();
        let contradiction = ["--tls-version", "1.2", "--ciphers", "TLS_AES_128_GCM_SHA256"];
        assert!(matches!(load(ca.path(), &contradiction), Err(TlsError::NothingToOffer(_))));
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let ca = authority();
        let other = rcgen::KeyPair::generate().expect("a key");
        let key = tempfile::NamedTempFile::new().expect("a file");
        fs::write(key.path(), other.serialize_pem()).expect("written");
        let path = |file: &tempfile::NamedTempFile| file.path().to_str().expect("UTF-8").to_owned();
        let refused = load(ca.path(), &["--cert", &path(&ca), "--key", &path(&key)]);
        assert!(matches!(refused, Err(TlsError::IdentityUnusable(..))));
    }

    #[test]
    fn tickets_are_not_shared_among_clients_with_certificates_of_their_own() {
        let ca = authority();
        let refused = load(ca.path(), &["--cert", "c-%i.pem", "--key", "c-%i.key", "--resume", "0.5"]);
        assert!(matches!(refused, Err(TlsError::ResumeWithIdentities)));
    }
}
