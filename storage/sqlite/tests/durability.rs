//! What is left after the process is killed, and what the files give away.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use sotto_model::Offset;
use sotto_sqlite::SqliteStore;
use sotto_storage::StoreError;
use sotto_storage::conformance::fixture::{GENEROUS, NOW, selector, topic};
use sotto_storage::conformance::{Fixture, Fresh};
use sotto_storage::message_log::{Append, MessageLog, Placed, RetainChange};
use sotto_storage::outbox::Outbox;

const BATCH: usize = 7;
const FOLDER: &str = "SOTTO_TEST_FOLDER";

#[tokio::test]
async fn nothing_acknowledged_is_lost_to_a_kill() {
    for kill_after in [1, 40, 150] {
        let folder = tempfile::tempdir().expect("temporary folder");
        let mut child = Command::new(std::env::current_exe().expect("this test's program"))
            .args(["--exact", "commits_until_it_is_killed", "--nocapture"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start a process that commits");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut acknowledged = 0;
        for line in lines {
            let line = line.expect("read its output");
            let Some(batch) = line.strip_prefix("committed ") else { continue };
            acknowledged = batch.parse().expect("a number");
            if acknowledged == kill_after {
                // SIGKILL; what it has written by then is still read.
                child.kill().expect("kill it");
            }
        }
        child.wait().expect("wait for it");
        assert!(acknowledged >= kill_after, "it ran until it was killed");
        check(folder.path(), acknowledged).await;
    }
}

async fn check(folder: &Path, acknowledged: u64) {
    let store = SqliteStore::open(&folder.join("sotto.db")).await.expect("open what was left");
    let batches = store.claim_writer().await.expect("claim");
    // One more may have been committed and not told of.
    assert!(batches == acknowledged || batches == acknowledged + 1, "{batches} after {acknowledged}");
    let heads = store.heads().await.expect("heads");
    let (tenant, head) = *heads.iter().find(|(_, head)| head.0 > 0).expect("a tenant with messages");
    assert_eq!(head.0, batches * BATCH as u64, "batches are committed whole");
    let page = store.read(tenant, &[selector("#")], Offset(0), head, GENEROUS).await.expect("read");
    assert!(page.messages.iter().map(|message| message.offset).eq((1..=head.0).map(Offset)));
    assert_eq!(store.lag(NOW).await.expect("lag").messages, head.0, "each with its outbox row");
    store.close().await.expect("close");
}

/// The process that the test before this one starts and kills. On its own it does nothing.
#[tokio::test]
async fn commits_until_it_is_killed() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let store = SqliteStore::open(&Path::new(&folder).join("sotto.db")).await.expect("open");
    let fixture = Fixture::new(Fresh { store: Arc::new(store), keep: Box::new(()) }).await;
    for number in 1_u64.. {
        let mut appends = Vec::new();
        for place in 0..BATCH as u64 {
            let topic = topic(&format!("t/{}", (number * 3 + place) % 50));
            appends.push(fixture.message(&fixture.robot, &topic).await);
        }
        fixture.append(appends).await;
        writeln!(std::io::stdout(), "committed {number}").expect("the other end reads");
    }
}

#[tokio::test]
async fn payloads_are_not_found_in_the_files() {
    const CANARY: &[u8] = b"canary-5d41402abc4b2a76b9719d911017c592";
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("sotto.db");
    let store = Arc::new(SqliteStore::open(&path).await.expect("open"));
    let f = Fixture::new(Fresh { store: Arc::clone(&store) as _, keep: Box::new(()) }).await;
    let message = f.message_of(&f.alice, &f.ward_topic(), CANARY).await;
    let batch = vec![Append { retain: RetainChange::Set, ..message }];
    f.append(batch).await;
    assert!(found(folder.path(), f.alice.user.0.as_bytes()), "the search finds what is there");
    assert!(!found(folder.path(), CANARY), "in the write-ahead log");
    store.close().await.expect("close");
    assert!(found(folder.path(), f.alice.user.0.as_bytes()));
    assert!(!found(folder.path(), CANARY), "in the database file");
}

fn found(folder: &Path, needle: &[u8]) -> bool {
    fs::read_dir(folder).expect("list folder").any(|entry| {
        let bytes = fs::read(entry.expect("list folder").path()).expect("read file");
        bytes.windows(needle.len()).any(|window| window == needle)
    })
}

#[tokio::test]
async fn an_append_to_a_tenant_that_is_not_there_is_refused_alone() {
    let (here, there) = (fixture().await, fixture().await);
    let foreign = there.message(&there.robot, &topic("a")).await;
    let own = here.message(&here.robot, &topic("a")).await;
    let batch = here.batch(vec![own, foreign]);
    assert!(matches!(here.store.append(&batch).await, Err(StoreError::Refused { .. })));
    assert_eq!(here.head(here.lab).await, Offset(0), "all of a batch or nothing");
    let mut batch = batch;
    batch.appends.truncate(1);
    assert_eq!(here.store.append(&batch).await.expect("append the rest"), [Placed::Now(Offset(1))]);
}

async fn fixture() -> Fixture {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = SqliteStore::open(&folder.path().join("sotto.db")).await.expect("open");
    Fixture::new(Fresh { store: Arc::new(store), keep: Box::new(folder) }).await
}
