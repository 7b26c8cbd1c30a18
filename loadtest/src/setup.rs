//! What both scenarios need before they begin: everything that can be refused is refused here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};

use crate::args::CommonArgs;
use crate::client::ClientError;
use crate::connector::Connector;
use crate::credentials::Credentials;
use crate::endpoint::Endpoint;
use crate::file_limit;
use crate::report::Target;
use crate::run_clock::RunClock;
use crate::server_process::{ServerProcess, ServerSample};
use crate::source_address::SourceAddresses;
use crate::template::RunId;
use crate::tls::Tls;

pub(crate) struct Setup {
    pub(crate) connector: Arc<Connector>,
    pub(crate) threads: usize,
    pub(crate) connect_rate: f64,
    pub(crate) connect_in_flight: usize,
    server: Option<ServerProcess>,
    /// Set by Ctrl-C.
    pub(crate) interrupted: Arc<AtomicBool>,
}

impl Setup {
    pub(crate) fn prepare(args: &CommonArgs, clients: u64) -> anyhow::Result<Self> {
        let threads = args.threads();
        file_limit::make_room(clients, threads)?;
        let endpoint = Endpoint::resolve(&args.addr)?;
        let sources = SourceAddresses::choose(args.source_range.as_ref(), endpoint.address);
        if clients > sources.capacity() {
            bail!(
                "{clients} connections need more ports than their source addresses have ({}): give a larger \
                 --source-range",
                sources.capacity()
            );
        }
        let server_name = args.server_name.as_ref().unwrap_or(&endpoint.host);
        let tls = if args.plain { None } else { Some(Tls::load(&args.ca, server_name)?) };
        let credentials = Credentials::load(args.username.clone(), args.password_file.as_deref())?;
        let connector = Connector {
            endpoint,
            tls,
            sources,
            version: args.protocol.version(),
            client_id: args.client_id.clone(),
            credentials,
            clean_start: args.clean,
            session_expiry_seconds: args.session_expiry,
            keep_alive_seconds: args.keep_alive,
            timeout: Duration::from_secs(args.connect_timeout),
            run: RunId(rand::random()),
            clock: RunClock::start(),
        };
        Ok(Self {
            connector: Arc::new(connector),
            threads,
            connect_rate: args.connect_rate,
            connect_in_flight: args.connect_in_flight as usize,
            server: args.server_pid.map(ServerProcess::open).transpose()?,
            interrupted: Arc::default(),
        })
    }

    /// Connects and disconnects client 0: what is wrong with the address, the certificate or the password
    /// is then said once, not by every client.
    pub(crate) async fn probe(&self) -> anyhow::Result<Target> {
        let address = self.connector.endpoint.address;
        let connected =
            self.connector.connect(0, None).await.with_context(|| format!("connect to {address}"))?;
        let transport = connected.client.stream().describe();
        match connected.client.close().await {
            // A broker that closes first has not failed.
            Ok(()) | Err(ClientError::Closed | ClientError::Io(_)) => {}
            Err(error) => bail!("disconnect from {address}: {error}"),
        }
        Ok(Target {
            address: address.to_string(),
            transport,
            protocol: match self.connector.version {
                sotto_mqtt::packet::Version::V3 => "MQTT 3.1.1",
                sotto_mqtt::packet::Version::V5 => "MQTT 5.0",
            },
        })
    }

    /// `None` without a process to look at, and when it has gone.
    pub(crate) fn sample_server(&self) -> Option<ServerSample> {
        self.server?.sample().ok()
    }

    /// The first Ctrl-C ends the run early, with its report; the second ends the process.
    pub(crate) fn listen_for_interrupt(&self) {
        let interrupted = Arc::clone(&self.interrupted);
        tokio::spawn(async move {
            while tokio::signal::ctrl_c().await.is_ok() {
                if interrupted.swap(true, Ordering::Relaxed) {
                    std::process::exit(130);
                }
                eprintln!("stopping; once more to stop at once");
            }
        });
    }
}
