//! What all scenarios need before they begin: everything that can be refused is refused here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};

use crate::agents::Agents;
use crate::client::ClientError;
use crate::common_args::CommonArgs;
use crate::connector::{Connector, Route};
use crate::credentials::Credentials;
use crate::endpoint::Endpoint;
use crate::file_limit;
use crate::local_ports::ports_per_address;
use crate::prometheus;
use crate::recorder::Recorder;
use crate::run_clock::RunClock;
use crate::server::Server;
use crate::server_process::{ServerProcess, ServerSample};
use crate::source_address::SourceAddresses;
use crate::target::Target;
use crate::template::RunId;
use crate::tls::{Tls, server_name};
use crate::token_file::read_token;

#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) connector: Arc<Connector>,
    pub(crate) threads: usize,
    pub(crate) connect_rate: f64,
    pub(crate) connect_in_flight: usize,
    server: Option<Server>,
    pub(crate) recorder: Arc<Recorder>,
    /// Who does the work, if it is not done in this process.
    pub(crate) agents: Option<Arc<Agents>>,
    /// Set by Ctrl-C.
    pub(crate) interrupted: Arc<AtomicBool>,
}

impl Setup {
    pub(crate) fn prepare(args: &CommonArgs, clients: u64) -> anyhow::Result<Self> {
        let clock = RunClock::start();
        let agents = gather(args, clock)?.map(Arc::new);
        // What runs elsewhere looks after its own files.
        let connections = if agents.is_some() { 0 } else { clients };
        let server = open_server(args)?;
        let run = RunId(rand::random());
        let setup = Self { agents, ..Self::build(args, connections, clients, clock, run, server)? };
        if let Some(address) = args.output.prometheus {
            let address = prometheus::serve(address, &setup.recorder).context("serve metrics")?;
            eprintln!("metrics at http://{address}/metrics");
        }
        Ok(setup)
    }

    /// For a process that does a part of a run for another, which looks at the broker and makes the report.
    pub(crate) fn of_part(
        args: &CommonArgs,
        clients: u32,
        clock: RunClock,
        run: RunId,
    ) -> anyhow::Result<Self> {
        Self::build(args, clients.into(), clients.into(), clock, run, None)
    }

    fn build(
        args: &CommonArgs,
        connections: u64,
        clients: u64,
        clock: RunClock,
        run: RunId,
        server: Option<Server>,
    ) -> anyhow::Result<Self> {
        let threads = args.threads();
        file_limit::make_room(connections, threads)?;
        let transport = &args.transport;
        let routes =
            transport.addr.iter().map(|addr| route(addr, args)).collect::<anyhow::Result<Arc<[_]>>>()?;
        let ports = ports(&routes);
        if clients > ports {
            bail!(
                "{clients} connections need more ports than their source addresses have ({ports}): give a larger \
                 --source-range"
            );
        }
        let tls = if transport.plain { None } else { Some(Arc::new(Tls::load(transport)?)) };
        let credentials = Credentials::load(
            args.client_id.clone(),
            args.username.clone(),
            args.password_file.as_deref(),
            args.credentials.as_deref(),
        )?;
        credentials.suffice(clients)?;
        let connector = Connector {
            routes,
            tls,
            lean: false,
            web_socket: transport.ws.then(|| transport.ws_path.as_str().into()),
            version: args.protocol.version(),
            credentials,
            clean_start: args.clean,
            session_expiry_seconds: args.session_expiry,
            receive_maximum: args.receive_maximum,
            keep_alive_seconds: args.keep_alive,
            timeout: Duration::from_secs(args.connect_timeout),
            run,
            clock,
        };
        let recorder = Arc::new(Recorder::start(clock, server.clone(), threads));
        Ok(Self {
            connector: Arc::new(connector),
            threads,
            connect_rate: args.connect_rate,
            connect_in_flight: args.connect_in_flight as usize,
            server,
            recorder,
            agents: None,
            interrupted: Arc::default(),
        })
    }

    /// Of the same run, towards another address or by another transport.
    pub(crate) fn beside(&self, args: &CommonArgs, clients: u64) -> anyhow::Result<Self> {
        // The figures are served once.
        let mut args = args.clone();
        args.output.prometheus = None;
        let other = Self::prepare(&args, clients)?.with_connector(|connector| {
            connector.run = self.connector.run;
            connector.clock = self.connector.clock;
        });
        Ok(Self { recorder: Arc::clone(&self.recorder), interrupted: Arc::clone(&self.interrupted), ..other })
    }

    /// Connections that there are ports for.
    pub(crate) fn ports(&self) -> u64 {
        ports(&self.connector.routes)
    }

    /// The same run, with clients that connect in another way.
    pub(crate) fn with_connector(&self, change: impl FnOnce(&mut Connector)) -> Self {
        let mut connector = Connector::clone(&self.connector);
        change(&mut connector);
        Self { connector: Arc::new(connector), ..self.clone() }
    }

    /// The same run, with sessions that carry little.
    pub(crate) fn lean(&self) -> Self {
        self.with_connector(|connector| connector.lean = true)
    }

    /// The same run, with connections begun at another rate and at least so many under way at once.
    pub(crate) fn with_connects(&self, rate: f64, at_once: u32) -> Self {
        let connect_in_flight = self.connect_in_flight.max(at_once as usize);
        Self { connect_rate: rate, connect_in_flight, ..self.clone() }
    }

    /// Connects and disconnects once at each address: what is wrong with the address, the certificate or the
    /// password is then said once, not by every client.
    pub(crate) async fn probe(&self) -> anyhow::Result<Target> {
        let mut transport = String::new();
        for (number, route) in (0..).zip(self.connector.routes.iter()) {
            let address = route.endpoint.address;
            let connected = self.connector.connect(number, None).await;
            let connected = connected.with_context(|| format!("connect to {address}"))?;
            transport = connected.client.stream().describe();
            match connected.client.close().await {
                // A broker that closes first has not failed.
                Ok(()) | Err(ClientError::Closed | ClientError::Io(_)) => {}
                Err(error) => bail!("disconnect from {address}: {error}"),
            }
        }
        let addresses: Vec<_> =
            self.connector.routes.iter().map(|route| route.endpoint.address.to_string()).collect();
        Ok(Target {
            address: addresses.join(", "),
            transport,
            protocol: match self.connector.version {
                sotto_mqtt::packet::Version::V3 => "MQTT 3.1.1",
                sotto_mqtt::packet::Version::V5 => "MQTT 5.0",
            },
        })
    }

    /// `None` without a process to look at, and when it has gone.
    pub(crate) fn sample_server(&self) -> Option<ServerSample> {
        self.server.as_ref()?.sample()
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

fn ports(routes: &[Route]) -> u64 {
    let per_address = ports_per_address();
    routes.iter().fold(0, |sum: u64, route| sum.saturating_add(route.sources.capacity(per_address)))
}

fn route(addr: &str, args: &CommonArgs) -> anyhow::Result<Route> {
    let endpoint = Endpoint::resolve(addr)?;
    let sources = SourceAddresses::choose(args.source_range.as_ref(), endpoint.address);
    let server_name = server_name(args.transport.server_name.as_ref().unwrap_or(&endpoint.host))?;
    Ok(Route { endpoint, server_name, sources })
}

fn open_server(args: &CommonArgs) -> anyhow::Result<Option<Server>> {
    if let Some(metrics) = &args.server_metrics {
        // What is wrong with it is said before the run.
        metrics.sample()?;
        return Ok(Some(Server::Metrics(metrics.clone())));
    }
    Ok(args.server_pid.map(ServerProcess::open).transpose()?.map(Server::Process))
}

/// `None` for a run in this process alone.
fn gather(args: &CommonArgs, clock: RunClock) -> anyhow::Result<Option<Agents>> {
    if !args.spread.is_asked_for() {
        return Ok(None);
    }
    let token = args.spread.token_file.as_deref().map(read_token).transpose()?;
    Ok(Some(Agents::gather(&args.spread, token.as_ref(), args.threads, clock)?))
}
