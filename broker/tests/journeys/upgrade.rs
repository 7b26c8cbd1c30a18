//! Processes that start at once, on a schema that none of them has made yet, and on one that is newer than they are.

use std::process::Stdio;
use std::time::Duration;

use sotto_postgres::testing::TestDatabase;
use tokio::process::Child;

use crate::support::database::{Database, Kind};
use crate::support::house::{House, free_port};
use crate::support::patience::soon;
use crate::support::process::sotto;

const PROCESSES: usize = 3;

/// Each in a data folder of its own.
fn start(folder: &std::path::Path, number: usize, url: &str, arguments: &[&str]) -> Child {
    let data = folder.join(number.to_string());
    std::fs::create_dir_all(&data).expect("make a data folder");
    let mut command = sotto();
    command.arg("--data").arg(data).args(["--database", url]).args(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start sotto")
}

async fn end_well(processes: Vec<Child>) {
    for process in processes {
        let output = soon("a command", process.wait_with_output()).await.expect("run sotto");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_processes_make_or_upgrade_the_schema_once() {
    let _kept = House::closed(Database::create(Kind::Postgres).await, "");
    for database in
        [TestDatabase::empty().await, TestDatabase::of_schema(1).await, TestDatabase::of_schema(5).await]
    {
        let folder = tempfile::tempdir().expect("make a folder");
        let list = |number| start(folder.path(), number, database.url(), &["tenant", "list"]);
        end_well((0..PROCESSES).map(list).collect()).await;
        // The schema is whole, and this program's.
        end_well(vec![start(folder.path(), 0, database.url(), &["store", "verify"])]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_brokers_that_start_at_once_one_serves() {
    let _kept = House::closed(Database::create(Kind::Postgres).await, "");
    let database = TestDatabase::empty().await;
    let folder = tempfile::tempdir().expect("make a folder");
    let serve = |number| {
        let address = || format!("127.0.0.1:{}", free_port());
        let (mqtts, wss, private) = (address(), address(), address());
        let flags = ["serve", "--mqtts", &mqtts, "--wss", &wss, "--private", &private];
        start(folder.path(), number, database.url(), &flags)
    };
    let mut brokers: Vec<Child> = (0..PROCESSES).map(serve).collect();
    let mut gave_up = 0;
    soon("all brokers but one to give up", async {
        while gave_up < PROCESSES - 1 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let mut left = Vec::new();
            for mut broker in brokers.drain(..) {
                if broker.try_wait().expect("look at a broker").is_none() {
                    left.push(broker);
                    continue;
                }
                let output = broker.wait_with_output().await.expect("its output");
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                let line = said.lines().last().unwrap_or_default();
                assert!(line.starts_with("sotto: "), "{said}");
                gave_up += 1;
            }
            brokers = left;
        }
    })
    .await;
    assert_eq!((brokers.len(), gave_up), (1, PROCESSES - 1));
    let mut server = brokers.remove(0);
    assert!(server.try_wait().expect("look at the broker").is_none(), "it serves");
    server.kill().await.expect("kill the broker");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_from_the_future_is_refused_in_one_line() {
    let mut house = House::open(Kind::Postgres).await;
    assert_eq!(house.terminate().await.code(), Some(0));
    house.database.run(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (9999, 'of the future', true, '', 0)",
    );
    for command in [&["serve"][..], &["tenant", "list"], &["store", "verify"], &["store", "restored"]] {
        let (_, said, error) = house.sotto_failing(command).await;
        assert_eq!(said, "");
        let expected =
            "sotto: open PostgreSQL: database schema is newer than this program: it has migration 9999\n";
        assert!(error.ends_with(expected), "{error}");
    }
}
