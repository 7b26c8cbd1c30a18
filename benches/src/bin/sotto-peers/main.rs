//! Sotto side by side with other brokers: the same scenarios, the same load tester, one machine, interleaved.
//!
//! Every broker is a process of its own, started anew for what measures memory. What is not installed is
//! skipped with a word; what fails is a cell with its reason.

#![expect(clippy::disallowed_methods, reason = "it measures wall time")]
#![expect(clippy::disallowed_macros, reason = "it is a command line: it prints")]

mod args;
mod broker;
mod certificates;
mod comparison;
mod conditions;
mod course;
mod database;
mod html;
mod install;
mod limits;
mod load;
mod load_report;
mod markdown;
mod measure;
mod process_tree;
mod programs;
mod results;
mod run;
mod running;
mod scenario;
mod spread;
mod summary;

use std::fs;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;

use crate::args::Args;
use crate::comparison::Comparison;
use crate::conditions::Conditions;
use crate::programs::Programs;

fn main() -> ExitCode {
    match compare(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn compare(args: &Args) -> anyhow::Result<()> {
    if args.install {
        install::install(&args.peers_dir())?;
    }
    let mut programs = Programs::find(args)?;
    let brokers = programs.of(&args.brokers());
    let sizes = args.sizes(limits::raise_open_files());
    let course = course::plan(&args.scenarios(), &brokers, args.rounds, args.seed);
    let mut conditions = Conditions::of(&programs, &brokers, args, &sizes);
    let results = run::run(&programs, &course, &sizes, args.longest())?;
    conditions.suites = results.suites();
    let comparison = Comparison::of(conditions, &results, &sizes);
    print!("{}", markdown::full(&comparison));
    if let Some(file) = &args.json {
        let json = serde_json::to_string_pretty(&comparison).context("encode the comparison")?;
        fs::write(file, json + "\n").with_context(|| format!("write {}", file.display()))?;
    }
    if let Some(file) = &args.html {
        let page = html::page(&comparison);
        fs::write(file, page).with_context(|| format!("write {}", file.display()))?;
    }
    for file in &args.markdown {
        markdown::update(file, &comparison)?;
    }
    Ok(())
}
