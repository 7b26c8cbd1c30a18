//! `sotto store`: what is done to a store as a whole, beside a running broker or without one.

#![expect(clippy::disallowed_macros, reason = "it is a command line: it prints")]

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use serde_json::{Value, json};
use sotto_keyring::{Keyring, KeyringLimits, LocalKms, LocalKmsError};
use sotto_model::Clock;
use sotto_postgres::PostgresStore;
use sotto_sqlite::SqliteStore;
use sotto_storage::restoration::RESTORE_GAP;
use sotto_storage::store_check::{Extent, Progress, Report, StoreCheck, verify};

use crate::app::Backend;
use crate::clock::SystemClock;
use crate::config::Config;
use crate::data_dir::DataDir;

/// Between two lines that say how far a check has come.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

#[derive(Subcommand)]
pub(crate) enum StoreCommand {
    /// Check a live or a restored store without changing it; fails when anything is wrong
    Verify {
        /// Open about so many messages, spread over the log, and not all of them
        #[arg(long, value_name = "N")]
        sample: Option<u64>,
    },
    /// Copy the embedded store to a new file, also while a broker serves from it
    Backup {
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },
    /// Make a store ready that was restored from a backup, before a broker serves from it. A copy that `backup` made
    /// needs no such call
    Restored,
}

impl StoreCommand {
    pub(crate) async fn run(self, config: &Config, json: bool) -> Result<()> {
        let data = DataDir::at(&config.data);
        match self {
            Self::Verify { sample } => {
                let extent = sample.map_or(Extent::All, Extent::Sample);
                verify_store(&data, config.database_url.as_deref(), extent, json).await
            }
            Self::Backup { to } => {
                if config.database_url.is_some() {
                    bail!("PostgreSQL is backed up with its own tools: pg_basebackup and WAL archiving");
                }
                back_up(&data, &to, json).await
            }
            Self::Restored => restored(&data, config.database_url.as_deref(), json).await,
        }
    }
}

async fn verify_store(data: &DataDir, database: Option<&str>, extent: Extent, json: bool) -> Result<()> {
    let clock = Arc::new(SystemClock::new());
    let store: Arc<dyn StoreCheck> = match database {
        Some(url) => Arc::new(PostgresStore::connect_to_check(url).await.context("open PostgreSQL")?),
        None => Arc::new(
            SqliteStore::open_to_check(&data.database())
                .await
                .with_context(|| format!("open the embedded store {}", data.database().display()))?,
        ),
    };
    let keyring = keyring_to_check(data, &store, &clock).await?;
    let started = clock.now();
    let mut told = started;
    let mut tell = |progress: Progress| {
        let now = clock.now();
        if now.duration_since(told) >= PROGRESS_EVERY {
            told = now;
            eprintln!("{} of {} messages read", progress.messages, progress.messages_all);
        }
    };
    let report =
        verify(&*store, keyring.as_ref(), &*clock, extent, &mut tell).await.context("check the store")?;
    print_report(&report, extent, took(started, clock.now()), json);
    let wrong = report.findings.total();
    if wrong > 0 {
        bail!("the store is damaged: {wrong} findings");
    }
    Ok(())
}

async fn back_up(data: &DataDir, to: &Path, json: bool) -> Result<()> {
    let clock = SystemClock::new();
    let started = clock.now();
    let bytes = SqliteStore::back_up(&data.database(), to).await.context("back up the embedded store")?;
    let seconds = took(started, clock.now()).as_secs_f64();
    let apart = [data.root_key(), data.ca_certificate(), data.ca_key(), data.admin_token()]
        .map(|path| path.display().to_string());
    if json {
        println!(
            "{}",
            json!({"file": to.display().to_string(), "bytes": bytes, "seconds": seconds, "apart": apart})
        );
        return Ok(());
    }
    println!("{}: {bytes} bytes in {seconds:.1} s", to.display());
    println!("Without the root key nothing in it opens. Keep these apart from it, and as safe:");
    for path in apart {
        println!("  {path}");
    }
    Ok(())
}

async fn restored(data: &DataDir, database: Option<&str>, json: bool) -> Result<()> {
    // The lock keeps a broker away from the embedded store; PostgreSQL has one of its own.
    let _lock = match database {
        None => Some(data.lock()?),
        Some(_) => None,
    };
    if database.is_none() && !data.database().exists() {
        bail!("there is no {}", data.database().display());
    }
    let backend = Backend::open(data, database).await?;
    let result = backend.restored(SystemClock::new().unix_now()).await;
    backend.close().await;
    let done = result?;
    let answer = json!({"logs": done.logs, "packet_ids_forgotten": done.packet_ids_forgotten,
                        "wakeups_due": done.wakeups_due, "gap": RESTORE_GAP});
    if json {
        println!("{answer}");
    } else {
        println!(
            "{} logs go on {RESTORE_GAP} offsets later; {} packet identifiers forgotten; {} wakeups due again",
            done.logs, done.packet_ids_forgotten, done.wakeups_due
        );
    }
    Ok(())
}

/// A store without keys is checked without a root key; any other needs the one that it began with.
async fn keyring_to_check(
    data: &DataDir,
    store: &Arc<dyn StoreCheck>,
    clock: &SystemClock,
) -> Result<Option<Keyring>> {
    let path = data.root_key();
    match LocalKms::open(&path) {
        Ok(kms) => {
            let keys = store.clone();
            Ok(Some(Keyring::new(Arc::new(kms), keys, KeyringLimits::default(), clock.now())))
        }
        Err(LocalKmsError::Io(error))
            if error.kind() == io::ErrorKind::NotFound
                && store.epoch_keys(None, 1).await.context("list the keys")?.is_empty() =>
        {
            Ok(None)
        }
        Err(error) => Err(error).with_context(|| format!("open the local root key {}", path.display())),
    }
}

fn print_report(report: &Report, extent: Extent, took: Duration, json: bool) {
    let opened = &report.opened;
    if json {
        let findings: Vec<Value> = report
            .findings
            .iter()
            .map(|(kind, count, named)| {
                let named: Vec<String> = named.iter().map(ToString::to_string).collect();
                json!({"finding": kind.as_str(), "count": count, "first": named})
            })
            .collect();
        let tenants: Vec<Value> = report
            .logs
            .iter()
            .map(|(tenant, log)| {
                json!({"tenant": tenant, "head": log.head, "messages": log.messages,
                       "first": log.extent.map(|(first, _)| first)})
            })
            .collect();
        let rows: serde_json::Map<String, Value> =
            report.counts.iter().map(|(table, rows)| ((*table).to_owned(), json!(rows))).collect();
        println!(
            "{}",
            json!({
                "whole": report.findings.is_empty(),
                "findings": findings,
                "rows": rows,
                "tenants": tenants,
                "opened": {
                    "epoch_keys": opened.epoch_keys, "data_keys": opened.data_keys,
                    "messages": opened.messages, "retained": opened.retained,
                    "wills": opened.wills, "push_tokens": opened.push_tokens,
                },
                "sampled": extent != Extent::All,
                "seconds": took.as_secs_f64(),
            })
        );
        return;
    }
    for (kind, count, named) in report.findings.iter() {
        for finding in named {
            println!("{finding}");
        }
        let more = count - named.len() as u64;
        if more > 0 {
            println!("{} and {more} more", kind.as_str());
        }
    }
    let rows: Vec<String> = report.counts.iter().map(|(table, rows)| format!("{table}={rows}")).collect();
    println!("rows: {}", rows.join(" "));
    println!(
        "opened: epoch_keys={} data_keys={} messages={}{} retained={} wills={} push_tokens={}",
        opened.epoch_keys,
        opened.data_keys,
        opened.messages,
        if extent == Extent::All { "" } else { " (sample)" },
        opened.retained,
        opened.wills,
        opened.push_tokens,
    );
    for (tenant, log) in report.logs.iter().take(TENANTS_SHOWN_MAX) {
        let first = log.extent.map_or(0, |(first, _)| first);
        println!("tenant {tenant}: messages={} first={first} head={}", log.messages, log.head);
    }
    if let Some(more) = report.logs.len().checked_sub(TENANTS_SHOWN_MAX + 1) {
        println!("and {} tenants more", more + 1);
    }
    if report.findings.is_empty() {
        println!("the store is whole ({:.1} s)", took.as_secs_f64());
    }
}

/// Tenants that are listed; JSON has them all.
const TENANTS_SHOWN_MAX: usize = 100;

fn took(from: Instant, to: Instant) -> Duration {
    to.duration_since(from)
}
