//! `sotto`: an MQTT broker for mobile messaging in healthcare.

mod admission;
mod app;
mod audit;
mod certificates;
mod cli;
mod client_tag;
mod clock;
mod commits;
mod config;
mod connection;
mod connection_id;
mod cpu_use;
mod data_dir;
mod database_wait;
mod deadlines;
mod demo;
#[cfg(test)]
mod density;
mod device_request;
mod devices;
mod directory;
mod drain;
mod listener;
mod listener_name;
mod log_starts;
mod logging;
mod memory_use;
mod metrics;
mod node;
mod open_files;
mod operation;
mod operations;
mod password_queue;
mod private;
mod proxy_protocol;
mod publishing;
mod push_config;
mod push_services;
mod reading;
mod record;
mod registrar;
mod registry;
mod retained_topics;
mod retention;
mod router;
mod services;
mod session_entry;
mod share;
#[cfg(test)]
mod simulation;
mod socket;
mod store_command;
mod sweep;
mod tls;
mod topic_tree;
mod transport;
mod unsaved;
mod websocket;
mod wills;
mod wills_under_way;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::Cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The exit code for a command line that cannot be understood, as is usual.
const USAGE: u8 = 2;

#[tokio::main]
async fn main() -> ExitCode {
    // A panic's message may quote what came from outside: only its place is printed.
    std::panic::set_hook(Box::new(|panic| {
        if let Some(place) = panic.location() {
            tracing::error!(event = "panic", code = %place, "a task panicked");
        }
    }));
    // One provider for all TLS of the process, before anything could choose another.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            report(&anyhow::Error::msg(usage_fault(&error)));
            return ExitCode::from(USAGE);
        }
        // Help, or the version.
        Err(error) => error.exit(),
    };
    match cli.run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

/// One line, the culprit last.
#[expect(clippy::disallowed_macros, reason = "it is a command line: it prints")]
fn report(error: &anyhow::Error) {
    eprintln!("sotto: {error:#}");
}

/// What is wrong, in one line, without the usage that follows it.
fn usage_fault(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let said = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"));
    let line = said.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    line.strip_prefix("error: ").unwrap_or(&line).to_owned()
}
