//! Where a broker keeps its data: the embedded store, or a PostgreSQL database of the test's own.

use std::process::Command;

use sotto_postgres::testing::TestDatabase;
use tokio::sync::OnceCell;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Sqlite,
    Postgres,
}

pub(crate) enum Database {
    /// In the data folder.
    Sqlite,
    Postgres(TestDatabase),
    /// A server that the test stops and starts.
    Own(String),
}

impl Database {
    pub(crate) async fn create(kind: Kind) -> Self {
        // The server goes with its last database, and starting one takes seconds. This one is never dropped:
        // the server's watchdog ends it with the process.
        static KEPT: OnceCell<TestDatabase> = OnceCell::const_new();
        match kind {
            Kind::Sqlite => Self::Sqlite,
            Kind::Postgres => {
                KEPT.get_or_init(TestDatabase::create).await;
                Self::Postgres(TestDatabase::create().await)
            }
        }
    }

    pub(crate) fn url(&self) -> Option<&str> {
        match self {
            Self::Sqlite => None,
            Self::Postgres(database) => Some(database.url()),
            Self::Own(url) => Some(url),
        }
    }

    /// Runs statements in PostgreSQL, past the broker.
    pub(crate) fn run(&self, statements: &str) {
        let Self::Postgres(database) = self else { panic!("not PostgreSQL") };
        let mut psql = client(database, "psql");
        psql.args(["--quiet", "--dbname", database.url(), "--command", statements]);
        assert!(psql.status().expect("run psql").success());
    }

    /// All that PostgreSQL holds, as text. Binary columns are in hexadecimal digits.
    pub(crate) fn dump(&self) -> Option<Vec<u8>> {
        let Self::Postgres(database) = self else { return None };
        let mut dump = client(database, "pg_dump");
        let output = dump.arg("--dbname").arg(database.url()).output().expect("run pg_dump");
        assert!(output.status.success(), "pg_dump: {}", String::from_utf8_lossy(&output.stderr));
        Some(output.stdout)
    }
}

fn client(database: &TestDatabase, program: &str) -> Command {
    match database.server() {
        Some(server) => server.client(program),
        None => Command::new(program),
    }
}
