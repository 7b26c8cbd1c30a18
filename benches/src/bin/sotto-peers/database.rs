//! A PostgreSQL of the comparison's own.

use std::cell::Cell;
use std::fs;
use std::time::Duration;

use anyhow::{Context, ensure};
use sotto_postgres::testing::{Durability, Server};

use crate::process_tree;

pub(crate) struct Database {
    server: Server,
    /// Databases made on it.
    made: Cell<u32>,
}

impl Database {
    /// As PostgreSQL comes: what is committed is on disk.
    pub(crate) fn start() -> Self {
        Self { server: Server::start(Durability::Full), made: Cell::new(0) }
    }

    /// The URL of a new database.
    pub(crate) fn create(&self) -> anyhow::Result<String> {
        let name = format!("comparison_{}", self.made.replace(self.made.get() + 1));
        let create = format!("CREATE DATABASE {name}");
        let mut psql = self.server.client("psql");
        psql.args(["--quiet", "--dbname", "postgres", "--command", &create]);
        let output = psql.output().context("run psql")?;
        ensure!(output.status.success(), "psql: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(self.server.url(&name))
    }

    /// CPU of all its processes.
    pub(crate) fn cpu(&self) -> Option<Duration> {
        let pid_file = fs::read_to_string(self.server.folder().join("data/postmaster.pid")).ok()?;
        process_tree::cpu(pid_file.lines().next()?.trim().parse().ok()?)
    }
}
