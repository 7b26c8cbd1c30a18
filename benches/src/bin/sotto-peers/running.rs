//! A broker that runs, in a folder that goes with it.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Instant;

use anyhow::{Context, bail};
use tempfile::TempDir;

use crate::broker::Broker;
use crate::certificates::Certificates;
use crate::database::Database;
use crate::limits::{START_POLL, START_TIMEOUT, STOP_TIMEOUT};
use crate::programs::Programs;

/// Ended when dropped.
pub(crate) struct Running {
    process: Child,
    pub(crate) tls: SocketAddr,
    pub(crate) plain: SocketAddr,
    _folder: TempDir,
}

impl Running {
    /// Returns once it listens.
    pub(crate) fn start(
        broker: Broker,
        programs: &Programs,
        certificates: &Certificates,
        database: Option<&Database>,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("sotto-peer-").tempdir().context("make a folder")?;
        let (tls, plain) = (free_address()?, free_address()?);
        let place = Place { folder: folder.path(), tls, plain, certificates };
        let program = programs.of_broker(broker).map_err(anyhow::Error::msg)?;
        let mut command = Command::new(program);
        match broker {
            Broker::Sotto | Broker::SottoSqlite => place.sotto(&mut command, None)?,
            Broker::SottoPostgres => {
                let database = database.context("find PostgreSQL")?.create()?;
                place.sotto(&mut command, Some(&database))?;
            }
            Broker::Mosquitto => place.mosquitto(&mut command)?,
            Broker::Rmqtt => place.rmqtt(&mut command),
            Broker::Rumqttd => place.rumqttd(&mut command)?,
            Broker::Aedes => place.aedes(&mut command, &programs.aedes_dir()),
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir(folder.path());
        let process = command.spawn().context("start it")?;
        let mut running = Self { process, tls, plain, _folder: folder };
        running.wait_until_it_listens()?;
        Ok(running)
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    fn wait_until_it_listens(&mut self) -> anyhow::Result<()> {
        let since = Instant::now();
        for address in [self.plain, self.tls] {
            while TcpStream::connect(address).is_err() {
                if let Some(status) = self.process.try_wait().context("look at it")? {
                    bail!("ended before it listened: {status}");
                }
                if since.elapsed() > START_TIMEOUT {
                    bail!("does not listen after {} s", START_TIMEOUT.as_secs());
                }
                sleep(START_POLL);
            }
        }
        Ok(())
    }
}

impl Drop for Running {
    /// First it is asked: PostgreSQL is told goodbye, and memory that a broker shares is given back.
    fn drop(&mut self) {
        // A process that has ended already cannot be asked, and is waited for all the same.
        let _ = Command::new("kill").args(["-TERM", &self.id().to_string()]).stderr(Stdio::null()).status();
        let since = Instant::now();
        while let Ok(None) = self.process.try_wait() {
            if since.elapsed() > STOP_TIMEOUT {
                let _ = self.process.kill();
                let _ = self.process.wait();
                return;
            }
            sleep(START_POLL);
        }
    }
}

/// What a broker is told about where it runs.
struct Place<'a> {
    folder: &'a Path,
    tls: SocketAddr,
    plain: SocketAddr,
    certificates: &'a Certificates,
}

impl Place<'_> {
    fn sotto(&self, command: &mut Command, database_url: Option<&str>) -> anyhow::Result<()> {
        let config = format!(
            "lab = true\ndemo = false\n[tls]\ncertificate_file = \"{}\"\nkey_file = \"{}\"\n",
            self.certificates.certificate().display(),
            self.certificates.key().display(),
        );
        let config = self.write("sotto.toml", &config)?;
        command.arg("serve").arg("--config").arg(config).arg("--data").arg(self.folder.join("data"));
        if let Some(url) = database_url {
            command.args(["--database", url]);
        }
        command.args(["--mqtts", &self.tls.to_string(), "--plain", &self.plain.to_string()]);
        command.args(["--wss", "127.0.0.1:0", "--private", "127.0.0.1:0"]);
        Ok(())
    }

    fn mosquitto(&self, command: &mut Command) -> anyhow::Result<()> {
        // Started by root it would become another user, who may not read the folder; others it lets be.
        let config = format!(
            "user root\nlistener {} 127.0.0.1\nlistener {} 127.0.0.1\ncertfile {}\nkeyfile {}\ntls_version tlsv1.3\n\
             allow_anonymous true\npersistence false\nset_tcp_nodelay true\nmax_inflight_messages 128\n\
             max_queued_messages 100000\nlog_dest none\nconnection_messages false\n",
            self.plain.port(),
            self.tls.port(),
            self.certificates.certificate().display(),
            self.certificates.key().display(),
        );
        command.arg("-c").arg(self.write("mosquitto.conf", &config)?);
        Ok(())
    }

    fn rmqtt(&self, command: &mut Command) {
        command.args([self.tls.to_string(), self.plain.to_string()]);
        command.arg(self.certificates.certificate()).arg(self.certificates.key());
    }

    fn rumqttd(&self, command: &mut Command) -> anyhow::Result<()> {
        let connections = "connection_timeout_ms = 60000\nmax_payload_size = 20480\nmax_inflight_count = 128\n\
                           dynamic_filters = true\n";
        let config = format!(
            "id = 0\n\
             [router]\nid = 0\nmax_connections = 100000\nmax_outgoing_packet_count = 200\n\
             max_segment_size = 104857600\nmax_segment_count = 10\n\
             [v4.1]\nname = \"plain\"\nlisten = \"{}\"\nnext_connection_delay_ms = 0\n\
             [v4.1.connections]\n{connections}\
             [v4.2]\nname = \"tls\"\nlisten = \"{}\"\nnext_connection_delay_ms = 0\n\
             [v4.2.tls]\ncertpath = \"{}\"\nkeypath = \"{}\"\n\
             [v4.2.connections]\n{connections}",
            self.plain,
            self.tls,
            self.certificates.certificate().display(),
            self.certificates.key().display(),
        );
        command.arg("--config").arg(self.write("rumqttd.toml", &config)?);
        Ok(())
    }

    fn aedes(&self, command: &mut Command, folder: &Path) {
        command.arg(folder.join("server.js"));
        command.args([self.tls.port().to_string(), self.plain.port().to_string()]);
        command.arg(self.certificates.certificate()).arg(self.certificates.key());
    }

    fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let file = self.folder.join(name);
        fs::write(&file, text).with_context(|| format!("write {name}"))?;
        Ok(file)
    }
}

fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
    listener.local_addr().context("find a free port")
}
