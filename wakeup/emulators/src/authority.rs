//! A certification authority of a test's own.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

pub struct Authority {
    root_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    #[expect(clippy::new_without_default, reason = "it is not a value among others: it is generated")]
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut root = CertificateParams::default();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root_pem = root.self_signed(&key).expect("a root").pem();
        Self { root_pem, issuer: Issuer::new(root, key) }
    }

    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// Of a server on this machine that speaks HTTP/2.
    pub(crate) fn server_config(&self) -> Arc<ServerConfig> {
        let key = KeyPair::generate().expect("a key");
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let certificate = CertificateParams::new(names).expect("names").signed_by(&key, &self.issuer);
        let certificate = certificate.expect("a certificate");
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("an identity");
        tls.alpn_protocols = vec![b"h2".to_vec()];
        Arc::new(tls)
    }
}
