//! A broker with its data folder and database, which outlive its process.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

use super::database::{Database, Kind};
use super::metrics::{Metrics, get};
use super::patience::{soon, until};
use super::process::{Output, Process, sotto};

pub(crate) struct House {
    folder: TempDir,
    pub(crate) database: Database,
    mqtts: u16,
    wss: u16,
    private: u16,
    config: String,
    /// Of its processes, beside that of the test.
    pub(crate) environment: Vec<(String, String)>,
    process: Option<Process>,
    /// Of every process that served here.
    outputs: Vec<Output>,
}

impl House {
    /// With a broker that serves.
    pub(crate) async fn open(kind: Kind) -> Self {
        Self::configured(kind, "").await
    }

    pub(crate) async fn configured(kind: Kind, config: &str) -> Self {
        let mut house = Self::closed(Database::create(kind).await, config);
        house.start().await;
        house
    }

    /// Without a running broker.
    pub(crate) fn closed(database: Database, config: &str) -> Self {
        Self {
            folder: tempfile::Builder::new().prefix("sotto-journey-").tempdir().expect("make a folder"),
            database,
            mqtts: free_port(),
            wss: free_port(),
            private: free_port(),
            config: config.to_owned(),
            environment: Vec::new(),
            process: None,
            outputs: Vec::new(),
        }
    }

    pub(crate) fn configure(&mut self, config: String) {
        self.config = config;
    }

    // ---- the process ----

    pub(crate) async fn start(&mut self) {
        assert!(self.process.is_none(), "it runs");
        let mut arguments = vec!["serve".to_owned(), "--json".to_owned()];
        arguments.extend(self.place());
        for (flag, port) in [("--mqtts", self.mqtts), ("--wss", self.wss), ("--private", self.private)] {
            arguments.extend([flag.to_owned(), format!("127.0.0.1:{port}")]);
        }
        let process = Process::start_in(&self.environment, &arguments, self.folder.path(), "}\n").await;
        let started: Value = serde_json::from_str(&process.stdout.text()).expect("a line of JSON");
        assert_eq!(started["mqtts"], self.mqtts().to_string());
        assert_eq!(started["wss"], self.wss().to_string());
        assert_eq!(started["private"], self.private().to_string());
        self.outputs.extend([process.stdout.clone(), process.stderr.clone()]);
        self.process = Some(process);
    }

    pub(crate) async fn kill(&mut self) {
        self.process.take().expect("it runs").kill().await;
    }

    pub(crate) async fn kill_and_start(&mut self) {
        self.kill().await;
        self.start().await;
    }

    pub(crate) async fn terminate(&mut self) -> ExitStatus {
        self.process.take().expect("it runs").terminate().await
    }

    pub(crate) async fn signal(&self, name: &str) {
        self.process.as_ref().expect("it runs").signal(name).await;
    }

    /// Waits for a broker that was told to go.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        self.process.take().expect("it runs").ended().await
    }

    /// All that brokers printed and logged here.
    pub(crate) fn printed(&self) -> String {
        self.outputs.iter().map(Output::text).collect()
    }

    /// Most memory that the process has had in use, bytes.
    pub(crate) fn resident_bytes_max(&self) -> usize {
        let id = self.process.as_ref().expect("it runs").id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("read /proc");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
        let kib: usize = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kib * 1024
    }

    // ---- places ----

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn ca_file(&self) -> PathBuf {
        self.data().join("ca.crt")
    }

    pub(crate) fn mqtts(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.mqtts).into()
    }

    pub(crate) fn wss(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.wss).into()
    }

    pub(crate) fn private(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.private).into()
    }

    /// Trusts the broker's own certification authority, and nothing else.
    pub(crate) fn tls(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_file(self.ca_file()).expect("the CA's certificate");
        roots.add(root).expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        Arc::new(tls.expect("versions").with_root_certificates(roots).with_no_client_auth())
    }

    fn place(&self) -> Vec<String> {
        let mut arguments = vec!["--data".to_owned(), self.data().display().to_string()];
        if let Some(url) = self.database.url() {
            arguments.extend(["--database".to_owned(), url.to_owned()]);
        }
        if !self.config.is_empty() {
            let file = self.folder.path().join("sotto.toml");
            std::fs::write(&file, &self.config).expect("write the configuration");
            arguments.extend(["--config".to_owned(), file.display().to_string()]);
        }
        arguments
    }

    // ---- the demo tenant ----

    pub(crate) fn password(&self, user: &str) -> String {
        std::fs::read_to_string(self.data().join("demo").join(format!("{user}.password")))
            .expect("a demo password")
    }

    pub(crate) fn conversation(&self) -> String {
        std::fs::read_to_string(self.data().join("demo/conversation")).expect("the demo conversation")
    }

    /// The topic of the demo conversation.
    pub(crate) fn topic(&self) -> String {
        format!("c/{}/m", self.conversation())
    }

    // ---- the command line ----

    /// The answer to a command, which must succeed.
    pub(crate) async fn sotto(&self, arguments: &[&str]) -> Value {
        self.sotto_reading("", arguments).await
    }

    /// A command that must fail: its exit code, and what it says on standard output and error.
    pub(crate) async fn sotto_failing(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let mut command = sotto();
        command.args(self.place()).args(arguments).current_dir(self.folder.path());
        let output = soon("a command", command.output()).await.expect("run sotto");
        assert!(!output.status.success(), "sotto {arguments:?} succeeds");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    /// The same, with something on standard input.
    pub(crate) async fn sotto_reading(&self, input: &str, arguments: &[&str]) -> Value {
        let mut child = sotto()
            .args(self.place())
            .arg("--json")
            .args(arguments)
            .current_dir(self.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start sotto");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(input.as_bytes()).await.expect("write to sotto");
        drop(stdin);
        let output = soon("a command", child.wait_with_output()).await.expect("run sotto");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "sotto {arguments:?}: {error}");
        serde_json::from_slice(&output.stdout).expect("an answer in JSON")
    }

    /// The answer to a command that goes past the broker, straight to the database.
    pub(crate) async fn sotto_elsewhere(&self, arguments: &[&str]) -> Value {
        let elsewhere = Self::closed(Database::Own(self.database.url().expect("PostgreSQL").to_owned()), "");
        std::fs::create_dir(elsewhere.data()).expect("make a data folder");
        std::fs::copy(self.data().join("root.key"), elsewhere.data().join("root.key")).expect("copy a key");
        elsewhere.sotto(arguments).await
    }

    /// The id of a user of the demo tenant.
    pub(crate) async fn user_id(&self, name: &str) -> String {
        let users = self.sotto(&["user", "list", "--tenant", "demo"]).await;
        let users = users.as_array().expect("rows");
        let user = users.iter().find(|row| row["user"] == name).expect("the user");
        user["id"].as_str().expect("an id").to_owned()
    }

    /// A new conversation of the demo tenant; its id.
    pub(crate) async fn add_conversation(&self, members: &[&str]) -> String {
        let made = self.sotto(&["conversation", "add", "--tenant", "demo"]).await;
        let id = made["id"].as_str().expect("an id").to_owned();
        for member in members {
            self.add_member(&id, member).await;
        }
        id
    }

    pub(crate) async fn add_member(&self, conversation: &str, user: &str) {
        self.sotto(&["member", "add", "--tenant", "demo", "--conversation", conversation, user]).await;
    }

    pub(crate) async fn remove_member(&self, conversation: &str, user: &str) {
        self.sotto(&["member", "remove", "--tenant", "demo", "--conversation", conversation, user]).await;
    }

    // ---- the private listener ----

    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        get(self.private(), path).await
    }

    pub(crate) async fn metrics(&self) -> Metrics {
        let (status, text) = self.get("/metrics").await;
        assert_eq!(status, 200);
        Metrics::of(text)
    }

    /// Sessions that the broker knows, connected or not.
    pub(crate) async fn sessions(&self) -> u64 {
        self.metrics().await.count("sotto_sessions")
    }

    /// Waits until no more than `connections` are open.
    pub(crate) async fn connections_come_to(&self, connections: u32) {
        until("connections are closed", async || {
            self.metrics().await.count("sotto_connections{listener=\"mqtts\"}") <= u64::from(connections)
        })
        .await;
    }
}

/// Below the ports that the kernel gives to whoever asks for any, so that nobody takes it while a broker is
/// down.
pub(crate) fn free_port() -> u16 {
    const FIRST: u16 = 10_000;
    const PORTS: u16 = 20_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % u32::from(PORTS)).expect("below the modulus");
    for _ in 0..PORTS {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % PORTS;
        let port = FIRST + (start + step) % PORTS;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}
