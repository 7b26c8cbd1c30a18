//! A PostgreSQL server of a test's own.
//!
//! [`Server::start`] makes a cluster in a temporary directory and listens on a Unix socket in it, on no
//! port. A watchdog process holds the end of a pipe: however the test process ends, killed or not, the
//! pipe closes, the server stops and the directory goes. Where `SOTTO_TEST_DATABASE_URL` names a server,
//! [`TestDatabase::create`] makes its databases there.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use std::{env, fs};

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection};
use tempfile::TempDir;
use tokio::sync::OnceCell;
use uuid::Uuid;

use crate::{PostgresOptions, PostgresStore};

/// Names a server to use, by the URL of a database on it in which databases may be created.
pub const URL_VARIABLE: &str = "SOTTO_TEST_DATABASE_URL";

const SUPERUSER: &str = "sotto";

/// Whether a server outlives a power cut: tests need not, measurements must.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    Full,
    None,
}

pub struct Server {
    bin: PathBuf,
    directory: TempDir,
    owner: Option<Owner>,
    /// Held open: the watchdog ends the server when it closes.
    pipe: Option<ChildStdin>,
    watchdog: Child,
    /// Of the server's processes, beside that of this one.
    environment: Vec<(String, String)>,
}

/// The system user that runs the server when we are root, which it refuses to run as.
#[derive(Clone, Copy)]
struct Owner {
    uid: u32,
    gid: u32,
}

impl Server {
    /// Whether the programs that [`Server::start`] needs are here.
    pub fn is_installed() -> bool {
        binaries().is_some()
    }

    /// # Panics
    /// Where PostgreSQL is not installed or does not start: a test cannot go on.
    pub fn start(durability: Durability) -> Self {
        Self::start_with(durability, "", Vec::new())
    }

    /// With lines for `postgresql.conf`, and more in the environment of its processes.
    ///
    /// # Panics
    /// As [`Server::start`].
    pub fn start_with(
        durability: Durability,
        more_settings: &str,
        environment: Vec<(String, String)>,
    ) -> Self {
        let bin = binaries()
            .expect("PostgreSQL's initdb, pg_ctl and pg_dump, on the PATH or in /usr/lib/postgresql");
        let directory = tempfile::Builder::new().prefix("sotto-pg-").tempdir().expect("make a directory");
        let owner = owner_unless_unprivileged();
        if let Some(owner) = owner {
            std::os::unix::fs::chown(directory.path(), Some(owner.uid), Some(owner.gid))
                .expect("root may give a directory away");
        }
        let data = directory.path().join("data");
        run(command(&bin, "initdb", owner)
            .arg("--pgdata")
            .arg(&data)
            .args(["--username", SUPERUSER, "--auth", "trust", "--encoding", "UTF8", "--locale", "C"])
            .arg("--no-sync"));
        let mut settings = format!(
            "listen_addresses = ''\nunix_socket_directories = '{}'\nmax_connections = 300\n\
             max_wal_size = '4GB'\ncheckpoint_timeout = '30min'\nshared_buffers = '256MB'\n",
            directory.path().display()
        );
        if durability == Durability::None {
            settings.push_str("fsync = off\nfull_page_writes = off\n");
        }
        // The last of a setting counts.
        settings.push_str(more_settings);
        fs::OpenOptions::new()
            .append(true)
            .open(data.join("postgresql.conf"))
            .and_then(|mut file| file.write_all(settings.as_bytes()))
            .expect("write the server's settings");
        let mut watchdog = watchdog(&bin, directory.path(), owner);
        let pipe = watchdog.stdin.take();
        let server = Self { bin, directory, owner, pipe, watchdog, environment };
        server.resume();
        server
    }

    /// Starts the server again after [`Self::stop`].
    pub fn resume(&self) {
        let log = self.directory.path().join("log");
        let mut start = self.pg_ctl("start");
        start
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .arg("--log")
            .arg(&log)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let started = start.status().expect("start a PostgreSQL program").success();
        assert!(started, "the server did not start: {}", fs::read_to_string(log).unwrap_or_default());
    }

    /// As a crash or a failover looks to clients: connections break, nothing is said.
    pub fn stop(&self) {
        run(self.pg_ctl("stop").args(["--mode", "immediate"]));
    }

    /// In order: clients are sent away, what is in memory is written.
    pub fn stop_orderly(&self) {
        run(self.pg_ctl("stop").args(["--mode", "fast"]));
    }

    /// SIGKILL, for every process of the server: as a machine looks from outside that was cut off.
    pub fn kill(&self) {
        let pid_file = self.directory.path().join("data/postmaster.pid");
        let pids = fs::read_to_string(&pid_file).expect("the server runs");
        let postmaster = pids.lines().next().expect("its process id").trim().to_owned();
        let mut processes = children_of(&postmaster);
        // First, so that it starts no more of them.
        processes.insert(0, postmaster);
        let _ = Command::new("kill").arg("-KILL").args(&processes).stderr(Stdio::null()).status();
        // While one of them is there, the server does not start again.
        while processes.iter().any(|process| is_running(process)) {
            std::thread::sleep(Duration::from_millis(5));
        }
        // A process that nobody waits for keeps its id, and a server will not start beside that.
        for left in [pid_file, self.directory.path().join(".s.PGSQL.5432.lock")] {
            fs::remove_file(left).expect("remove what the server left");
        }
    }

    /// Where it keeps its data and its socket.
    pub fn folder(&self) -> &Path {
        self.directory.path()
    }

    /// The URL of one of its databases.
    pub fn url(&self, database: &str) -> String {
        format!("postgres:///{database}?host={}&user={SUPERUSER}", self.directory.path().display())
    }

    /// A command of this server's version, connected to it: `pg_dump`, `psql`.
    pub fn client(&self, program: &str) -> Command {
        // The server's programs may be on the PATH by links, and others elsewhere on it.
        let beside = self.bin.join(program);
        let mut command = Command::new(if beside.is_file() { beside.as_path() } else { Path::new(program) });
        command.arg("--host").arg(self.directory.path()).args(["--username", SUPERUSER]);
        command
    }

    fn pg_ctl(&self, action: &str) -> Command {
        let mut command = command(&self.bin, "pg_ctl", self.owner);
        command.arg(action).arg("--wait").arg("--pgdata").arg(self.directory.path().join("data"));
        command
    }

    /// The one server of this process's tests. Statics are not dropped: the watchdog sees to it.
    fn shared() -> Arc<Self> {
        static SHARED: OnceLock<Arc<Server>> = OnceLock::new();
        Arc::clone(SHARED.get_or_init(|| Arc::new(Self::start(Durability::None))))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The watchdog ends it, as it would after a kill; waiting keeps no zombie.
        self.pipe.take();
        let _ = self.watchdog.wait();
    }
}

/// A database with the schema and nothing in it.
pub struct TestDatabase {
    name: String,
    url: String,
    server: Option<Arc<Server>>,
}

impl TestDatabase {
    /// A copy of a database in which the schema was made once.
    pub async fn create() -> Self {
        static TEMPLATE: OnceCell<TestDatabase> = OnceCell::const_new();
        let template = TEMPLATE
            .get_or_init(|| async {
                let template = Self::empty().await;
                drop(template.store().await);
                template
            })
            .await;
        Self::copy_of(&template.name).await
    }

    /// Not even the schema.
    pub async fn empty() -> Self {
        Self::copy_of("template0").await
    }

    /// As an older program left it, which knew the migrations up to `version`.
    pub async fn of_schema(version: i64) -> Self {
        let database = Self::empty().await;
        let options: PgConnectOptions = database.url.parse().expect("a URL made here");
        let mut connection = options.connect().await.expect("connect to the test database");
        crate::migrations::run_up_to(&mut connection, version).await.expect("make an old schema");
        connection.close().await.expect("close");
        database
    }

    async fn copy_of(template: &str) -> Self {
        let name = format!("sotto_{}", Uuid::new_v4().simple());
        let (admin, server): (PgConnectOptions, _) = if let Ok(url) = env::var(URL_VARIABLE) {
            (url.parse().expect("a database URL in SOTTO_TEST_DATABASE_URL"), None)
        } else {
            let server = tokio::task::spawn_blocking(Server::shared).await.expect("start a server");
            (server.url("postgres").parse().expect("a URL made here"), Some(server))
        };
        let mut connection = admin.connect().await.expect("connect to the test server");
        // A template may not be in use, and the connection that made it may take a moment to end.
        let mut attempts = 0;
        while let Err(error) = sqlx::raw_sql(&format!("CREATE DATABASE {name} TEMPLATE {template}"))
            .execute(&mut connection)
            .await
        {
            attempts += 1;
            assert!(attempts < 100, "create a database: {error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        connection.close().await.expect("close");
        let url = match &server {
            Some(server) => server.url(&name),
            None => admin.database(&name).to_url_lossy().into(),
        };
        Self { name, url, server }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// `None` where the server is not ours.
    pub fn server(&self) -> Option<&Server> {
        self.server.as_deref()
    }

    pub async fn store(&self) -> PostgresStore {
        PostgresStore::connect(&self.url, PostgresOptions::default()).await.expect("open the test database")
    }
}

fn binaries() -> Option<PathBuf> {
    let on_path =
        env::var_os("PATH").into_iter().flat_map(|path| env::split_paths(&path).collect::<Vec<_>>());
    let mut installed: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|version| Some(version.ok()?.path().join("bin")))
        .collect();
    // The newest first.
    installed.sort_by_key(|bin| {
        let version =
            bin.parent().and_then(Path::file_name).and_then(|name| name.to_str()?.parse::<u32>().ok());
        std::cmp::Reverse(version)
    });
    on_path
        .chain(installed)
        .find(|bin| ["initdb", "pg_ctl", "pg_dump"].iter().all(|program| bin.join(program).is_file()))
}

fn children_of(parent: &str) -> Vec<String> {
    let processes = fs::read_dir("/proc").expect("read /proc");
    processes
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|process| status_of(process).is_some_and(|(_, of)| of == parent))
        .collect()
}

fn is_running(process: &str) -> bool {
    status_of(process).is_some_and(|(state, _)| state != "Z")
}

/// State and parent, from `pid (name) state parent …`.
fn status_of(process: &str) -> Option<(String, String)> {
    let status = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let mut fields = status.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.to_owned(), fields.next()?.to_owned()))
}

fn owner_unless_unprivileged() -> Option<Owner> {
    let id = |arguments: &[&str]| -> Option<u32> {
        let output = Command::new("id").args(arguments).output().ok()?;
        String::from_utf8(output.stdout).ok()?.trim().parse().ok()
    };
    if id(&["-u"])? != 0 {
        return None;
    }
    let owner = || Some(Owner { uid: id(&["-u", "postgres"])?, gid: id(&["-g", "postgres"])? });
    Some(owner().expect("a system user postgres: the server does not run as root"))
}

fn command(bin: &Path, program: &str, owner: Option<Owner>) -> Command {
    let mut command = Command::new(bin.join(program));
    if let Some(owner) = owner {
        command.uid(owner.uid).gid(owner.gid);
    }
    command.current_dir("/");
    command
}

fn run(command: &mut Command) {
    let status =
        command.stdin(Stdio::null()).stdout(Stdio::null()).status().expect("start a PostgreSQL program");
    assert!(status.success(), "{} failed", command.get_program().display());
}

fn watchdog(bin: &Path, directory: &Path, owner: Option<Owner>) -> Child {
    // Again where it fails: a server that was only just starting puts files where others were removed.
    let script = "cat >/dev/null; for attempt in 1 2 3 4 5 6 7 8 9 10; do \
         \"$0\" stop --mode immediate --pgdata \"$1/data\" >/dev/null 2>&1; \
         rm -rf \"$1\" 2>/dev/null && exit; sleep 1; done";
    let mut command = Command::new("sh");
    if let Some(owner) = owner {
        command.uid(owner.uid).gid(owner.gid);
    }
    command
        .current_dir("/")
        .args(["-c", script])
        .arg(bin.join("pg_ctl"))
        .arg(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // A signal to the test's process group (an interrupt in a terminal) must not take the watchdog along.
        .process_group(0)
        .spawn()
        .expect("start the watchdog")
}
