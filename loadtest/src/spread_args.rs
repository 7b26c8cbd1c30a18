//! Where a run is spread to, and the agent that takes a part of it.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::source_address::SourceRange;

#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Spreading")]
pub(crate) struct SpreadArgs {
    /// Processes on this machine that share the clients; their reports are joined into one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) processes: Option<u16>,
    /// Agents on other machines that share the clients: see `agent`. Files that the command line
    /// names are read where the agents run
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', requires = "token_file")]
    pub(crate) agents: Vec<String>,
    /// What the agents' --token-file holds too
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
}

impl SpreadArgs {
    pub(crate) fn parts(&self) -> u32 {
        let agents = u32::try_from(self.agents.len()).unwrap_or(u32::MAX);
        (u32::from(self.processes.unwrap_or(0)) + agents).max(1)
    }

    pub(crate) fn is_asked_for(&self) -> bool {
        self.processes.is_some() || !self.agents.is_empty()
    }
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct AgentArgs {
    /// Where to wait for work
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7883")]
    pub(crate) listen: SocketAddr,
    /// A secret of at least 16 bytes: who does not know it gets nothing done here
    #[arg(long, value_name = "FILE", required_unless_present = "stdio")]
    pub(crate) token_file: Option<PathBuf>,
    /// Source addresses of the clients that connect from here, in place of those that the coordinator names
    #[arg(long, value_name = "NETWORK")]
    pub(crate) source_range: Option<SourceRange>,
    /// For a process that the load tester has started itself
    #[arg(long, hide = true)]
    pub(crate) stdio: bool,
}
