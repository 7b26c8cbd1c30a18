//! Every bound of the load tester, with its unit.

use std::time::Duration;

/// Clients of one run; a number fits the payload's 24 bits.
pub(crate) const CLIENTS_MAX: i64 = (1 << 24) - 1;
/// Longest phase of a run, seconds: an intended time fits the payload's 40 bits of microseconds (12.7 days).
pub(crate) const RUN_SECONDS_MAX: u64 = 10 * 24 * 3600;
/// Largest payload, bytes.
pub(crate) const SIZE_BYTES_MAX: i64 = 16 * 1024 * 1024;
/// Largest packet accepted from the broker, bytes: the largest payload, a topic, properties.
pub(crate) const PACKET_BYTES_MAX: u32 = 17 * 1024 * 1024;
/// Read buffer of a thread, bytes; it grows to hold a larger packet.
pub(crate) const SCRATCH_BYTES: usize = 64 * 1024;
/// Room for one read behind a partial packet, bytes: more than the plaintext of a TLS record.
pub(crate) const READ_BYTES_MIN: usize = 24 * 1024;
/// Read at once from a socket on the stack, bytes.
pub(crate) const SOCKET_READ_BYTES: usize = 16 * 1024;
/// Encoded bytes of one client waiting for its socket before it encodes no more.
pub(crate) const UNSENT_BYTES_MAX: usize = 64 * 1024;
/// Send buffer kept by a client between writes, bytes.
pub(crate) const UNSENT_BYTES_KEPT: usize = 4 * 1024;
/// Connections from one source address, where the system does not say how many ports it hands out.
pub(crate) const PORTS_PER_ADDRESS: u64 = 10_000;
/// How long a port rests after its connection (TIME_WAIT of Linux).
pub(crate) const TIME_WAIT: Duration = Duration::from_mins(1);
/// Files the process needs beside its connections: standard streams, runtimes, timers, the report.
pub(crate) const FILES_RESERVED: u64 = 32;
/// Files each thread needs: epoll, eventfd, timer, signal pipe.
pub(crate) const FILES_PER_THREAD: u64 = 8;
/// Ranges that one set of sequences keeps; past it the oldest gap is closed and counts as lost.
pub(crate) const SEQUENCE_RANGES_MAX: usize = 16 * 1024;
/// Longest latency told apart; longer ones count as this.
pub(crate) const LATENCY_MAX: Duration = Duration::from_hours(1);
/// The pacer wakes at most this often; what comes due between is sent up to this late.
pub(crate) const PACER_TICK: Duration = Duration::from_micros(100);
/// Time without a delivery after which a QoS 0 publisher in a closed loop takes its window for lost.
pub(crate) const CREDIT_TIMEOUT: Duration = Duration::from_secs(1);
/// Time without a delivery after which the drain gives the rest up for lost.
pub(crate) const DRAIN_QUIET: Duration = Duration::from_secs(2);
/// Longest drain where nobody says how long it may be.
pub(crate) const DRAIN_LONGEST: Duration = Duration::from_secs(10);
/// Time after the last expected delivery in which duplicates may still show.
pub(crate) const DUPLICATES_WAIT: Duration = Duration::from_millis(200);
/// Time that messages have which came due just before the end of publishing.
pub(crate) const LAST_MESSAGES_WAIT: Duration = Duration::from_millis(200);
/// Time for clients to say DISCONNECT at the end.
pub(crate) const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Time the broker's memory has to settle before it is read.
pub(crate) const SETTLE: Duration = Duration::from_secs(1);
/// How often the run is looked at: phases, progress bar.
pub(crate) const WATCH_INTERVAL: Duration = Duration::from_millis(50);
/// How often progress is printed where it goes to no terminal.
pub(crate) const PLAIN_PROGRESS_INTERVAL: Duration = Duration::from_secs(5);
/// Rows of a timeline; past it, pairs of them are made one.
pub(crate) const TIMELINE_ROWS_MAX: usize = 3600;
/// Named moments of a timeline; past it, no more are taken.
pub(crate) const MARKS_MAX: usize = 256;
/// Seconds that one thread has recorded and nobody has read; past it, they are kept as one.
pub(crate) const INTERVALS_UNREAD_MAX: usize = 600;
/// Time that what happened in a second has to be handed over, before the second is shown while the run lasts.
pub(crate) const SHOW_AFTER: Duration = Duration::from_millis(100);
/// Share of its own cores above which the load tester's latencies are partly its own.
pub(crate) const BUSY_SHARE_MAX: f64 = 0.85;
/// Share of a machine's cores above which whoever runs there waits for one.
pub(crate) const MACHINE_BUSY_SHARE_MAX: f64 = 0.95;
/// Seconds of that before the report warns of it.
pub(crate) const BUSY_SECONDS_MIN: f64 = 2.0;
/// Longest answer of a broker's metrics endpoint, bytes.
pub(crate) const METRICS_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Time that each step of asking a broker for its metrics may take.
pub(crate) const METRICS_TIMEOUT: Duration = Duration::from_millis(500);
/// Longest request to the load tester's own metrics endpoint, bytes.
pub(crate) const SCRAPE_BYTES_MAX: usize = 8 * 1024;
/// Time that such a request may take to come, and its answer to be taken.
pub(crate) const SCRAPE_TIMEOUT: Duration = Duration::from_secs(2);
/// Shortest token that agents and coordinator share, bytes.
pub(crate) const TOKEN_BYTES_MIN: usize = 16;
/// Longest frame from an agent, bytes: what millions of clients have sent and received.
pub(crate) const AGENT_FRAME_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Longest frame to an agent, bytes: a command line.
pub(crate) const JOB_BYTES_MAX: usize = 1024 * 1024;
/// Orders that wait for an agent to follow them.
pub(crate) const ORDERS_QUEUED_MAX: usize = 64;
/// Time that a connection to an agent may take.
pub(crate) const AGENT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time that whoever connects to an agent has to show that it knows the token.
pub(crate) const AGENT_GREETING_TIMEOUT: Duration = Duration::from_secs(2);
/// Time that an agent has to answer, and its connection to take what it is sent.
pub(crate) const AGENT_ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// How often an agent says how far it is.
pub(crate) const AGENT_REPORT_INTERVAL: Duration = Duration::from_millis(100);
/// How often it looks whether all sessions of a crew have ended that is to stop.
pub(crate) const AGENT_STOP_INTERVAL: Duration = Duration::from_millis(10);
/// Time after which an agent that says nothing is taken for lost.
pub(crate) const AGENT_SILENCE_MAX: Duration = Duration::from_secs(15);
/// Time that agents have to end their sessions and hand over what they have counted.
pub(crate) const AGENT_DONE_TIMEOUT: Duration = Duration::from_mins(1);
/// Questions by which an agent's clock is compared.
pub(crate) const CLOCK_QUESTIONS: u32 = 16;
/// Messages to shared subscriptions whose members are in several processes: a bit each in every process, two in a
/// frame.
pub(crate) const SPREAD_SHARE_MESSAGES_MAX: u64 = 1 << 30;
/// Longest such run whose number of messages nobody knows before, seconds.
pub(crate) const SPREAD_SHARE_SECONDS_MAX: u64 = 3600;
/// Time for agents to hear of something before it is due.
pub(crate) const SPREAD_LEAD: Duration = Duration::from_millis(300);
/// Places of one plot that say their values under the pointer.
pub(crate) const PLOT_HOVERS_MAX: usize = 180;
/// Lines across one axis of a plot.
pub(crate) const PLOT_TICKS_MAX: u32 = 24;
/// Rows of the table below a plot.
pub(crate) const PLOT_TABLE_ROWS_MAX: usize = 240;
/// How often Keep Alive is looked after, for all clients of a thread.
pub(crate) const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Longest file of passwords or credentials, bytes.
pub(crate) const CREDENTIALS_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Session Expiry Interval of subscribers that go offline, where none is given, seconds.
pub(crate) const INBOX_EXPIRY_SECONDS: u32 = 3600;
/// Keep Alive in the Open MQTT Benchmark Suite, seconds.
pub(crate) const SUITE_KEEP_ALIVE_SECONDS: u16 = 300;
/// Payload of the messages of steady pairs, bytes.
pub(crate) const STEADY_SIZE_BYTES: usize = 64;
/// Messages looked up in the database at once; a statement of SQLite takes 32,766 values.
pub(crate) const LOOKUP_KEYS: usize = 1000;
/// Records under one key of TLS, far below what AES-GCM is good for (2^24.5).
pub(crate) const RECORDS_PER_KEY_MAX: u64 = 1 << 23;
/// TLS tickets kept for later connections; past it the oldest go.
pub(crate) const TICKETS_MAX: usize = 32 * 1024;
/// Longest answer to a request for a WebSocket, bytes.
pub(crate) const UPGRADE_BYTES_MAX: usize = 8 * 1024;
/// Bytes of such an answer read at once.
pub(crate) const UPGRADE_READ_BYTES: usize = 1024;
