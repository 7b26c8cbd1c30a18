//! One authority and one P-256 certificate for every broker of a comparison.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256,
};
use tempfile::TempDir;

/// PEM files in a folder that goes with them.
pub(crate) struct Certificates {
    folder: TempDir,
}

impl Certificates {
    pub(crate) fn make() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("sotto-peers-").tempdir().context("make a folder")?;
        let mut authority = CertificateParams::new(Vec::new()).context("describe an authority")?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.distinguished_name.push(DnType::CommonName, "authority of a comparison");
        let authority = CertifiedIssuer::self_signed(authority, p256()?).context("make an authority")?;
        let key = p256()?;
        let server = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()])
            .and_then(|params| params.signed_by(&key, &authority))
            .context("make a certificate")?;
        let certificates = Self { folder };
        let files = [
            (certificates.authority(), authority.pem()),
            (certificates.certificate(), server.pem()),
            (certificates.key(), key.serialize_pem()),
        ];
        for (file, pem) in files {
            fs::write(&file, pem).with_context(|| format!("write {}", file.display()))?;
        }
        Ok(certificates)
    }

    pub(crate) fn authority(&self) -> PathBuf {
        self.path("ca.pem")
    }

    pub(crate) fn certificate(&self) -> PathBuf {
        self.path("server.pem")
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.path("server.key")
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new(self.folder.path()).join(name)
    }
}

fn p256() -> anyhow::Result<KeyPair> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("make a P-256 key")
}
