//! The files that TLS is set up from, and what is made of them: read anew as a whole, or not at all.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::digest::{Context, SHA256};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, server::NoClientAuth};
use serde::Deserialize;

use crate::tls::config::{provider, server_config};
use crate::tls::tickets::{Binding, Tickets};
use crate::tls::validity::not_after;

#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsFilesError {
    #[error("read the certificate file {path}: {reason}")]
    Certificate { path: String, reason: PemFault },
    #[error("read the private key file {path}: {reason}")]
    Key { path: String, reason: PemFault },
    #[error("read the client CA file {path}: {reason}")]
    ClientCa { path: String, reason: PemFault },
    #[error("read the client CRL file {path}: {reason}")]
    ClientCrl { path: String, reason: PemFault },
    #[error("certificate {certificate} and private key {key} do not fit: {reason}")]
    Mismatch { certificate: String, key: String, reason: rustls::Error },
    #[error("client certificates cannot be checked by {path}: {reason}")]
    Verifier { path: String, reason: String },
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

/// Whether clients show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ClientCertificate {
    /// None is asked for.
    #[default]
    Off,
    /// One that is shown must be good.
    Optional,
    Required,
}

#[derive(Clone, Debug)]
pub(crate) struct TlsFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) client_certificate: ClientCertificate,
    /// There where client certificates are asked for.
    pub(crate) client_ca: Option<PathBuf>,
    pub(crate) client_crl: Option<PathBuf>,
}

/// What was made of the files.
pub(crate) struct Loaded {
    pub(crate) config: Arc<ServerConfig>,
    /// Of the server's certificate, seconds since the epoch.
    pub(crate) not_after: Option<u64>,
}

/// Changes when a file does: by rename, by a link that leads elsewhere, or in place.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Stamp(Vec<Option<FileStamp>>);

#[derive(Clone, PartialEq, Eq)]
struct FileStamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: Option<SystemTime>,
}

impl TlsFiles {
    /// `tickets` makes the sealer of tickets for what they are to be bound to.
    pub(crate) fn load(&self, tickets: impl FnOnce(Binding) -> Tickets) -> Result<Loaded, TlsFilesError> {
        let chain = certificates(&self.certificate)
            .map_err(|reason| TlsFilesError::Certificate { path: shown(&self.certificate), reason })?;
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .map_err(|error| TlsFilesError::Key { path: shown(&self.key), reason: PemFault::of(&error) })?;
        let provider = Arc::new(provider());
        let clients = self.client_verifier(&provider)?;
        let not_after = chain.first().and_then(|certificate| not_after(certificate));
        let tickets = tickets(clients.binding);
        let config =
            server_config(provider, clients.verifier, chain, key, Arc::new(tickets)).map_err(|reason| {
                match reason {
                    rustls::Error::InconsistentKeys(_)
                    | rustls::Error::InvalidCertificate(_)
                    | rustls::Error::General(_) => TlsFilesError::Mismatch {
                        certificate: shown(&self.certificate),
                        key: shown(&self.key),
                        reason,
                    },
                    reason => TlsFilesError::Setup(reason),
                }
            })?;
        Ok(Loaded { config, not_after })
    }

    pub(crate) fn stamp(&self) -> Stamp {
        use std::os::unix::fs::MetadataExt;

        let files =
            [Some(&self.certificate), Some(&self.key), self.client_ca.as_ref(), self.client_crl.as_ref()];
        let stamp = |path: &PathBuf| {
            // Of the file that a link leads to.
            let metadata = path.metadata().ok()?;
            Some(FileStamp {
                device: metadata.dev(),
                inode: metadata.ino(),
                bytes: metadata.len(),
                modified: metadata.modified().ok(),
            })
        };
        Stamp(files.into_iter().flatten().map(stamp).collect())
    }

    fn client_verifier(&self, provider: &Arc<CryptoProvider>) -> Result<Clients, TlsFilesError> {
        let Some(ca) = self.client_ca.as_ref().filter(|_| self.client_certificate != ClientCertificate::Off)
        else {
            return Ok(Clients { verifier: Arc::new(NoClientAuth), binding: [0; 32] });
        };
        let mut bound = Context::new(&SHA256);
        bound.update(if self.client_certificate == ClientCertificate::Required {
            b"required"
        } else {
            b"optional"
        });
        let failed = |reason: String| TlsFilesError::Verifier { path: shown(ca), reason };
        let mut roots = RootCertStore::empty();
        let authorities =
            certificates(ca).map_err(|reason| TlsFilesError::ClientCa { path: shown(ca), reason })?;
        for authority in authorities {
            bound.update(&authority);
            roots.add(authority).map_err(|error| failed(error.to_string()))?;
        }
        let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        if let Some(crl) = &self.client_crl {
            let lists =
                revocations(crl).map_err(|reason| TlsFilesError::ClientCrl { path: shown(crl), reason })?;
            for list in &lists {
                bound.update(list);
            }
            verifier = verifier.with_crls(lists);
        }
        if self.client_certificate == ClientCertificate::Optional {
            verifier = verifier.allow_unauthenticated();
        }
        let culprit = self.client_crl.as_ref().unwrap_or(ca);
        let verifier = verifier
            .build()
            .map_err(|error| TlsFilesError::Verifier { path: shown(culprit), reason: error.to_string() })?;
        let binding = bound.finish().as_ref().try_into().expect("SHA-256 has 32 bytes");
        Ok(Clients { verifier, binding })
    }
}

struct Clients {
    verifier: Arc<dyn ClientCertVerifier>,
    /// A ticket is good for as long as nothing of this has changed.
    binding: Binding,
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PemFault> {
    all(CertificateDer::pem_file_iter(path))
}

fn revocations(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, PemFault> {
    all(CertificateRevocationListDer::pem_file_iter(path))
}

fn all<T>(
    items: Result<impl Iterator<Item = Result<T, pem::Error>>, pem::Error>,
) -> Result<Vec<T>, PemFault> {
    let items =
        items.and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(|error| PemFault::of(&error))?;
    if items.is_empty() { Err(PemFault::Empty) } else { Ok(items) }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
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
