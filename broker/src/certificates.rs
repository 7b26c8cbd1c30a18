//! A certification authority and a certificate of the node's own, for where no other is configured.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};

use crate::data_dir::{DataDir, write_private};

#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificatesError {
    #[error("make certificates: {0}")]
    Make(#[from] rcgen::Error),
    #[error("write certificates: {}", .0.kind())]
    Write(#[from] io::Error),
}

/// Makes both unless they are there.
pub(crate) fn ensure(data: &DataDir) -> Result<(), CertificatesError> {
    // Written last, so that it stands for all of them.
    if data.server_certificate().exists() {
        return Ok(());
    }
    let ca_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut ca = CertificateParams::default();
    ca.distinguished_name.push(DnType::CommonName, "Sotto local CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_certificate = ca.self_signed(&ca_key)?;

    let server_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut server = CertificateParams::new(vec!["localhost".to_owned()])?;
    server.distinguished_name.push(DnType::CommonName, "localhost");
    for loopback in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        server.subject_alt_names.push(SanType::IpAddress(loopback));
    }
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let server_certificate = server.signed_by(&server_key, &Issuer::from_params(&ca, &ca_key))?;

    write_private(&data.ca_key(), ca_key.serialize_pem().as_bytes())?;
    write_private(&data.ca_certificate(), ca_certificate.pem().as_bytes())?;
    write_private(&data.server_key(), server_key.serialize_pem().as_bytes())?;
    write_private(&data.server_certificate(), server_certificate.pem().as_bytes())?;
    Ok(())
}
