//! mosquitto with certificates of its own, and the load tester against it.

#![expect(clippy::disallowed_macros, reason = "it says that it has been skipped")]
#![allow(dead_code, reason = "each test takes what it needs")]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::Value;

/// Clients with a certificate of their own.
const CLIENTS: u32 = 4;
const START_TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) struct Broker {
    pub(crate) process: Child,
    program: PathBuf,
    pub(crate) port: u16,
    /// Certificates, configuration, the load tester's report.
    pub(crate) folder: tempfile::TempDir,
}

impl Broker {
    /// `None`, and a word about it, where mosquitto is not installed. `access` ends its configuration, with
    /// `{folder}` for where the certificates are: the authority's `ca.pem`, and `client-0.pem` to `-3.pem`
    /// of as many clients, with their keys.
    pub(crate) fn start(access: &str) -> Option<Self> {
        let Some(program) = mosquitto() else {
            eprintln!("skipped: mosquitto is not installed");
            return None;
        };
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let authority = authority();
        let key = KeyPair::generate().expect("a key");
        let certificate = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]);
        let certificate = certificate.and_then(|params| params.signed_by(&key, &authority));
        fs::write(path("ca.pem"), authority.pem()).expect("written");
        fs::write(path("broker.pem"), certificate.expect("a certificate").pem()).expect("written");
        fs::write(path("broker.key"), key.serialize_pem()).expect("written");
        for number in 0..CLIENTS {
            let key = KeyPair::generate().expect("a key");
            let certificate = CertificateParams::new(vec![format!("client-{number}")]);
            let certificate = certificate.and_then(|params| params.signed_by(&key, &authority));
            let certificate = certificate.expect("a certificate").pem();
            fs::write(path(&format!("client-{number}.pem")), certificate).expect("written");
            fs::write(path(&format!("client-{number}.key")), key.serialize_pem()).expect("written");
        }
        let port = free_port();
        let folder_name = folder.path().display();
        // Started by root it would become another user, who may not read the folder.
        let config = format!(
            "user root\nmax_inflight_messages 1000\nmax_queued_messages 100000\nset_tcp_nodelay true\n\
             log_dest none\nlistener {port} 127.0.0.1\ncertfile {folder_name}/broker.pem\n\
             keyfile {folder_name}/broker.key\n{}\n",
            access.replace("{folder}", &folder_name.to_string())
        );
        fs::write(path("mosquitto.conf"), config).expect("written");
        let process = spawn(&program, folder.path());
        let broker = Self { process, program, port, folder };
        broker.wait();
        Some(broker)
    }

    pub(crate) fn stop(&mut self) {
        self.process.kill().expect("killed");
        self.process.wait().expect("ended");
    }

    /// On the same port.
    pub(crate) fn start_again(&mut self) {
        self.process = spawn(&self.program, self.folder.path());
        self.wait();
    }

    fn wait(&self) {
        let since = Instant::now();
        while TcpStream::connect(self.address()).is_err() {
            assert!(since.elapsed() < START_TIMEOUT, "mosquitto does not listen");
            sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn load(&self, args: &[&str]) -> (Output, Value) {
        let output = self.command(args).output().expect("run");
        let report = if output.status.code() == Some(1) { Value::Null } else { self.report() };
        (output, report)
    }

    pub(crate) fn report(&self) -> Value {
        let report = fs::read(self.folder.path().join("report.json")).expect("a report");
        serde_json::from_slice(&report).expect("JSON")
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = loadtest();
        command.args(args).args(["--addr", &self.address(), "--ca"]).arg(self.folder.path().join("ca.pem"));
        command.args(["--server-pid", &self.process.id().to_string(), "--json"]);
        command.arg(self.folder.path().join("report.json"));
        command
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have been killed by the test.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(program: &Path, folder: &Path) -> Child {
    let mut command = Command::new(program);
    command.arg("-c").arg(folder.join("mosquitto.conf")).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("mosquitto starts")
}

pub(crate) fn loadtest() -> Command {
    Command::new(env!("CARGO_BIN_EXE_sotto-loadtest"))
}

pub(crate) fn mosquitto() -> Option<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&folders).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders.map(|folder| folder.join("mosquitto")).find(|program| program.is_file())
}

pub(crate) fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "load test authority");
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
