use std::os::unix::fs::symlink;
use std::path::Path;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, date_time_ymd};
use sotto_model::UnixMillis;

use super::*;
use crate::clock::SystemClock;
use crate::tls::files::ClientCertificate;

/// A certificate that ends with `year`, and its key.
fn write_pair(folder: &Path, year: i32) {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("key");
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("params");
    params.not_after = date_time_ymd(year, 1, 1);
    let certificate = params.self_signed(&key).expect("certificate");
    std::fs::create_dir_all(folder).expect("a folder");
    std::fs::write(folder.join("tls.crt"), certificate.pem()).expect("write");
    std::fs::write(folder.join("tls.key"), key.serialize_pem()).expect("write");
}

fn files(folder: &Path) -> TlsFiles {
    TlsFiles {
        certificate: folder.join("tls.crt"),
        key: folder.join("tls.key"),
        client_certificate: ClientCertificate::Off,
        client_ca: None,
        client_crl: None,
    }
}

fn live(folder: &Path) -> LiveTls {
    let root = TicketRoot::open_or_make(&folder.join("ticket.key")).expect("a root");
    let clock = Arc::new(SystemClock::simulated(UnixMillis(1), 1));
    LiveTls::load(files(folder), root, clock).expect("good files")
}

#[tokio::test]
async fn a_bad_file_is_named_and_leaves_what_was_in_force() {
    let folder = tempfile::tempdir().expect("temporary folder");
    write_pair(folder.path(), 2040);
    let live = live(folder.path());
    let before = live.current();
    for (file, content, says) in [
        ("tls.crt", "", "certificate file"),
        ("tls.crt", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", "certificate file"),
        ("tls.key", "", "private key file"),
    ] {
        write_pair(folder.path(), 2041);
        std::fs::write(folder.path().join(file), content).expect("write");
        let error = live.reload().expect_err("a bad file").to_string();
        assert!(error.contains(says) && error.contains(file), "{error}");
        assert!(Arc::ptr_eq(&before, &live.current()));
    }
    let elsewhere = tempfile::tempdir().expect("temporary folder");
    write_pair(elsewhere.path(), 2042);
    std::fs::copy(elsewhere.path().join("tls.key"), folder.path().join("tls.key")).expect("copy");
    write_pair(elsewhere.path(), 2042);
    std::fs::copy(elsewhere.path().join("tls.crt"), folder.path().join("tls.crt")).expect("copy");
    let error = live.reload().expect_err("a key of another certificate").to_string();
    assert!(error.contains("do not fit") && error.contains("tls.key"), "{error}");
    assert!(Arc::ptr_eq(&before, &live.current()));
    write_pair(folder.path(), 2043);
    assert_eq!(live.reload().expect("good files"), Some(2_303_683_200));
    assert!(!Arc::ptr_eq(&before, &live.current()));
}

#[tokio::test]
async fn files_that_change_are_read_when_they_have_settled() {
    let folder = tempfile::tempdir().expect("temporary folder");
    write_pair(&folder.path().join("first"), 2040);
    write_pair(&folder.path().join("second"), 2041);
    symlink("first", folder.path().join("data")).expect("a link");
    let files = files(&folder.path().join("data"));
    let mut changes = Changes::new(files.stamp());
    assert!(!changes.are_settled(files.stamp()));
    // As Kubernetes does it.
    symlink("second", folder.path().join("new")).expect("a link");
    std::fs::rename(folder.path().join("new"), folder.path().join("data")).expect("rename");
    assert!(!changes.are_settled(files.stamp()), "it may go on");
    assert!(changes.are_settled(files.stamp()));
    assert!(!changes.are_settled(files.stamp()), "once");
    std::fs::remove_file(folder.path().join("second/tls.key")).expect("remove");
    assert!(!changes.are_settled(files.stamp()));
    write_pair(&folder.path().join("second"), 2042);
    assert!(!changes.are_settled(files.stamp()), "it was gone, and is another");
    assert!(changes.are_settled(files.stamp()));
}
