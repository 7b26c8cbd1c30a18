//! Load tester for MQTT brokers: many sessions from one process, over TLS as phones hold them.
//!
//! `hold` opens sessions and keeps them; `pubsub` sends numbered messages through them and counts what
//! arrives; `storm` cuts all connections at once; `churn` has them come and go; `inbox` has subscribers come
//! back to what was sent meanwhile. All measure from the moment at which something was due, so that a slow broker cannot hide
//! behind a load tester that waits for it.

#![expect(clippy::disallowed_methods, reason = "it measures wall time")]
#![expect(clippy::disallowed_macros, reason = "it is a command line: it prints")]

mod agent;
mod agents;
mod arg_values;
mod args;
mod card;
mod casting;
mod churn;
mod churner;
mod client;
mod common_args;
mod connecting;
mod connector;
mod counters;
mod credentials;
mod credit;
mod crew;
mod demand;
mod drift;
mod endpoint;
mod failures;
mod figures;
mod file_limit;
mod fine_timer;
mod finished;
mod guest;
mod heard;
mod hold;
mod holder;
mod hosted;
mod html;
mod html_text;
mod inbox;
mod inflight;
mod interval;
mod latencies;
mod latency_counts;
mod lean_tls;
mod ledger;
mod limits;
mod link;
mod local_ports;
mod message_tally;
mod objective_args;
mod objectives;
mod output_args;
mod own_usage;
mod pacer;
mod part;
mod payload;
mod play;
mod plot;
mod progress;
mod prometheus;
mod publisher;
mod pubsub;
mod qos_number;
mod record_reader;
mod recorder;
mod remote;
mod report;
mod roster;
mod run_clock;
mod scenario_args;
mod schedule;
mod script;
mod sequence_bits;
mod sequence_set;
mod server;
mod server_metrics;
mod server_process;
mod setup;
mod shared_sequences;
mod soak;
mod source_address;
mod spread_args;
mod spread_crew;
mod steady;
mod stored;
mod storm;
mod stormer;
mod stream;
mod subscriber;
mod subscription;
mod suite;
mod suite_case;
mod table;
mod target;
mod template;
mod terms;
mod threads;
mod tickets;
mod timeline;
mod timeline_csv;
mod tls;
mod token_file;
mod traffic;
mod transport_args;
mod web_socket;
mod wire;
mod worker;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Scenario};
use crate::report::Verdict;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The run could not be made, or not to its end.
const EXIT_FAILED: u8 = 1;
/// The run was made, and missed an objective that was set for it.
const EXIT_OBJECTIVE_MISSED: u8 = 2;
/// The arguments make no sense (sysexits' EX_USAGE; clap's own 2 would look like a missed objective).
const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // A reader that has gone away cannot be told.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let outcome = match args.scenario {
        Scenario::Hold(args) => hold::run(&args),
        Scenario::Pubsub(args) => pubsub::run(&args),
        Scenario::Storm(args) => storm::run(&args),
        Scenario::Churn(args) => churn::run(&args),
        Scenario::Inbox(args) => inbox::run(&args),
        Scenario::Suite(args) => suite::run(&args),
        Scenario::Soak(args) => soak::run(&args),
        Scenario::Agent(args) => agent::run(&args).map(|()| Verdict::DONE),
    };
    match outcome {
        Ok(verdict) if verdict.failed => ExitCode::from(EXIT_FAILED),
        Ok(verdict) if verdict.objective_missed => ExitCode::from(EXIT_OBJECTIVE_MISSED),
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}
