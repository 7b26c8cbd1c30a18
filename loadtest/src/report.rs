//! The outcome of a run: a table for people, the same as JSON for scripts.

use std::fs::File;
use std::io::{self, BufWriter, Write};

use serde::Serialize;

use crate::card::Card;
use crate::failures::Failures;
use crate::figures::{mebibytes, per_second};
use crate::html::Page;
use crate::latencies::LatencySummary;
use crate::objectives::Objective;
use crate::output_args::OutputArgs;
use crate::recorder::Recorded;
use crate::table::Table;
use crate::target::Target;
use crate::timeline_csv::write_csv;
use crate::worker::ConnectTally;

#[derive(Debug, Serialize)]
pub(crate) struct Report<Outcome> {
    pub(crate) scenario: &'static str,
    /// Hexadecimal.
    pub(crate) run: String,
    pub(crate) target: Target,
    #[serde(flatten)]
    pub(crate) outcome: Outcome,
    pub(crate) connecting: ConnectReport,
    /// Sessions that ended before they were told to, by reason.
    pub(crate) broken: Failures,
    /// Ended before its time; what was measured till then stands.
    pub(crate) interrupted: bool,
    pub(crate) objectives: Vec<Objective>,
    #[serde(flatten)]
    pub(crate) recorded: Recorded,
}

#[derive(Debug, Serialize)]
pub(crate) struct ConnectReport {
    pub(crate) wanted: u64,
    pub(crate) connected: u64,
    /// By reason.
    pub(crate) failed: Failures,
    /// From when the first was due to when the last was done.
    pub(crate) seconds: f64,
    pub(crate) connects_per_second: f64,
    pub(crate) waiting: LatencySummary,
    pub(crate) tcp: LatencySummary,
    pub(crate) tls: LatencySummary,
    /// TLS handshakes in which the broker accepted a ticket.
    pub(crate) tls_resumed: u64,
    pub(crate) web_socket: LatencySummary,
    /// Sessions that the broker had kept.
    pub(crate) sessions_present: u64,
    pub(crate) connack: LatencySummary,
    pub(crate) suback: LatencySummary,
    /// From when it was due.
    pub(crate) total: LatencySummary,
    pub(crate) server: Option<ServerConnectReport>,
}

/// What connections cost the broker.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct ServerConnectReport {
    pub(crate) rss_before_bytes: u64,
    pub(crate) rss_after_bytes: u64,
    pub(crate) bytes_per_connection: f64,
    pub(crate) cpu_per_connect_us: f64,
}

/// A report's own rows, above those about connecting.
pub(crate) trait Rows {
    fn rows(&self, table: &mut Table<'_>) -> io::Result<()>;

    /// Headline figures, before those about connecting.
    fn cards(&self) -> Vec<Card> {
        Vec::new()
    }
}

/// What the exit code tells.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Verdict {
    pub(crate) failed: bool,
    pub(crate) objective_missed: bool,
}

impl Verdict {
    pub(crate) const DONE: Self = Self { failed: false, objective_missed: false };
}

impl<Outcome: Rows + Serialize> Report<Outcome> {
    /// Prints the table, writes the files, and says in one line on standard error what has failed.
    pub(crate) fn publish(&self, output: &OutputArgs) -> io::Result<Verdict> {
        match &output.json {
            Some(path) if path.as_os_str() == "-" => {
                self.write_table(&mut io::stderr().lock())?;
                self.write_json(&mut io::stdout().lock())?;
            }
            Some(path) => {
                self.write_table(&mut io::stdout().lock())?;
                self.write_json(&mut File::create(path)?)?;
            }
            None => self.write_table(&mut io::stdout().lock())?,
        }
        if let Some(path) = &output.csv {
            let mut file = BufWriter::new(File::create(path)?);
            write_csv(&self.recorded.timeline, &mut file)?;
            file.flush()?;
        }
        if let Some(path) = &output.html {
            self.write_html(&mut File::create(path)?)?;
        }
        for trouble in self.troubles() {
            eprintln!("error: {trouble}");
        }
        let failed = self.interrupted
            || self.connecting.failed.total() > 0
            || self.broken.total() > 0
            || !self.recorded.troubles.is_empty();
        let objective_missed = self.objectives.iter().any(|objective| !objective.met);
        Ok(Verdict { failed, objective_missed })
    }

    fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        let mut out = BufWriter::new(out);
        serde_json::to_writer_pretty(&mut out, self)?;
        writeln!(out)?;
        out.flush()
    }

    fn write_html(&self, out: &mut impl Write) -> io::Result<()> {
        let mut sink = io::sink();
        let mut table = Table::new(&mut sink);
        self.rows(&mut table)?;
        let mut cards = self.outcome.cards();
        cards.extend(self.connecting.cards());
        let page = Page {
            scenario: self.scenario,
            run: &self.run,
            target: &self.target,
            troubles: self.troubles(),
            cards,
            objectives: &self.objectives,
            lines: table.lines(),
            recorded: &self.recorded,
        };
        out.write_all(page.render().as_bytes())
    }

    /// What makes the run a failure, in a line each.
    fn troubles(&self) -> Vec<String> {
        let wanted = self.connecting.wanted;
        let failed = [("could not connect", &self.connecting.failed), ("ended early", &self.broken)];
        let failed = failed.into_iter().filter_map(|(what, failures)| {
            let (reason, _) = failures.iter().max_by_key(|(_, count)| *count)?;
            let total = failures.total();
            // Clients that connect several times may fail to each time.
            let who = if total <= wanted {
                format!("{total} of {wanted} clients")
            } else {
                format!("{total} times clients")
            };
            Some(format!("{who} {what}, most of them because: {reason}"))
        });
        failed.chain(self.recorded.troubles.iter().cloned()).collect()
    }

    fn write_table(&self, out: &mut impl Write) -> io::Result<()> {
        let Target { address, transport, protocol } = &self.target;
        writeln!(out, "{} {address} · {protocol} · {transport} · run {}", self.scenario, self.run)?;
        let mut table = Table::new(out);
        self.rows(&mut table)?;
        if self.interrupted {
            table.row("interrupted", "before its time; the figures are of what was done till then")?;
        }
        for warning in &self.recorded.warnings {
            table.row("NOTE", warning)?;
        }
        for objective in &self.objectives {
            let verdict = if objective.met { "met" } else { "MISSED" };
            table.row(objective.name, &format!("{verdict}: {objective}"))?;
        }
        Ok(())
    }

    fn rows(&self, table: &mut Table<'_>) -> io::Result<()> {
        self.outcome.rows(table)?;
        self.connecting.rows(table)?;
        table.failures("failed to connect", &self.connecting.failed)?;
        table.failures("ended early", &self.broken)
    }
}

impl ConnectReport {
    pub(crate) fn new(
        wanted: u64,
        tally: &ConnectTally,
        seconds: f64,
        server: Option<ServerConnectReport>,
    ) -> Self {
        let total = tally.total.summary();
        Self {
            wanted,
            connected: total.count,
            failed: tally.failed.clone(),
            seconds,
            connects_per_second: per_second(total.count, seconds),
            waiting: tally.waiting.summary(),
            tcp: tally.tcp.summary(),
            tls: tally.tls.summary(),
            tls_resumed: tally.resumed,
            web_socket: tally.web_socket.summary(),
            sessions_present: tally.sessions_present,
            connack: tally.connack.summary(),
            suback: tally.suback.summary(),
            total,
            server,
        }
    }

    fn cards(&self) -> Vec<Card> {
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53")]
        let mut cards = vec![
            Card {
                label: "Sessions connected",
                value: self.connected as f64,
                unit: "",
                hint: format!("of {}", self.wanted),
            },
            Card {
                label: "Connect rate",
                value: self.connects_per_second,
                unit: "/s",
                hint: format!("over {:.1} s", self.seconds),
            },
            Card::latency("p99 connect", self.total),
        ];
        if let Some(server) = self.server {
            cards.push(Card {
                label: "Broker per session",
                value: server.bytes_per_connection,
                unit: "bytes",
                hint: format!("{:.1} MiB in all", mebibytes(server.rss_after_bytes)),
            });
            cards.push(Card {
                label: "Broker CPU per connect",
                value: server.cpu_per_connect_us,
                unit: "µs",
                hint: String::new(),
            });
        }
        cards
    }

    fn rows(&self, table: &mut Table<'_>) -> io::Result<()> {
        table.row("connected", &format!("{} of {}", self.connected, self.wanted))?;
        table
            .row("connect rate", &format!("{:.0}/s over {:.2} s", self.connects_per_second, self.seconds))?;
        if self.sessions_present > 0 {
            table.row("sessions kept", &format!("{} of {}", self.sessions_present, self.connected))?;
        }
        if self.tls_resumed > 0 {
            table.row("TLS resumed", &format!("{} of {} handshakes", self.tls_resumed, self.tls.count))?;
        }
        table.latencies(&[
            ("before it began", self.waiting),
            ("TCP", self.tcp),
            ("TLS", self.tls),
            ("WebSocket", self.web_socket),
            ("CONNACK", self.connack),
            ("SUBACK", self.suback),
            ("connect, since due", self.total),
        ])?;
        if let Some(server) = self.server {
            table.row("server per connection", &format!("{:.0} bytes", server.bytes_per_connection))?;
            table.row("server CPU per connect", &format!("{:.1} µs", server.cpu_per_connect_us))?;
            let (before, after) = (mebibytes(server.rss_before_bytes), mebibytes(server.rss_after_bytes));
            table.row("server memory", &format!("{before:.1} MiB before, {after:.1} MiB connected"))?;
        }
        Ok(())
    }
}
