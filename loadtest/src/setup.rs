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
use crate::demand::Demand;
use crate::endpoint::Endpoint;
use crate::file_limit;
use crate::limits::TIME_WAIT;
use crate::local_ports::ports_per_address;
use crate::own_usage::{Processes, ThisProcess};
use crate::prometheus;
use crate::recorder::{Recorded, Recorder};
use crate::run_clock::RunClock;
use crate::server::Server;
use crate::server_process::{ServerProcess, ServerSample};
use crate::source_address::SourceAddresses;
use crate::target::Target;
use crate::template::RunId;
use crate::terms::Terms;
use crate::tls::{Tls, server_name};
use crate::token_file::read_token;

#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) connector: Arc<Connector>,
    pub(crate) threads: usize,
    pub(crate) connect_rate: f64,
    pub(crate) connect_in_flight: usize,
    /// Which of the run's ways to the broker.
    way: usize,
    server: Option<Server>,
    pub(crate) recorder: Arc<Recorder>,
    /// Who does the work, if it is not done in this process.
    pub(crate) agents: Option<Arc<Agents>>,
    /// Set by Ctrl-C, and when a thread or an agent is lost.
    pub(crate) interrupted: Arc<AtomicBool>,
}

impl Setup {
    pub(crate) fn prepare(args: &CommonArgs, demand: Demand) -> anyhow::Result<Self> {
        let ways = Self::prepare_ways(std::slice::from_ref(args), demand)?;
        Ok(ways.into_iter().next().expect("one for each"))
    }

    /// One for each way to the broker that a run takes; what is said of the run is said by the first.
    pub(crate) fn prepare_ways(ways: &[CommonArgs], demand: Demand) -> anyhow::Result<Vec<Self>> {
        let args = ways.first().context("there is a way to the broker")?;
        let clock = RunClock::start();
        let agents = gather(args, clock)?.map(Arc::new);
        let here = agents.as_ref().map_or(demand, |agents| Demand {
            // What runs elsewhere looks after its own files; the ports of this machine are its processes'.
            connections: 0,
            ..demand.share(agents.parts_here(), agents.parts())
        });
        let server = open_server(args)?;
        let run = RunId(rand::random());
        let processes: Arc<dyn Processes> = match &agents {
            Some(agents) => Arc::clone(agents) as Arc<dyn Processes>,
            None => Arc::new(ThisProcess(args.threads())),
        };
        let recorder = Arc::new(Recorder::start(clock, server.clone(), processes));
        let setups = Self::build_all(ways, here, clock, run, &recorder)?;
        if let Some(address) = args.output.prometheus {
            let address = prometheus::serve(address, &recorder).context("serve metrics")?;
            eprintln!("metrics at http://{address}/metrics");
        }
        if let Some(agents) = &agents {
            agents.prepare(run, demand)?;
        }
        let complete = |setup| Self { agents: agents.clone(), server: server.clone(), ..setup };
        Ok(setups.into_iter().map(complete).collect())
    }

    /// For a process that does a part of a run for another, which looks at the broker and makes the report.
    pub(crate) fn of_part(
        ways: &[CommonArgs],
        demand: Demand,
        clock: RunClock,
        run: RunId,
    ) -> anyhow::Result<Vec<Self>> {
        let processes = Arc::new(ThisProcess(ways.first().map_or(1, CommonArgs::threads)));
        Self::build_all(ways, demand, clock, run, &Arc::new(Recorder::start(clock, None, processes)))
    }

    fn build_all(
        ways: &[CommonArgs],
        demand: Demand,
        clock: RunClock,
        run: RunId,
        recorder: &Arc<Recorder>,
    ) -> anyhow::Result<Vec<Self>> {
        let interrupted = Arc::default();
        let build = |(way, args)| {
            let setup = Self::build(args, demand, clock, run, Arc::clone(recorder))?;
            Ok(Self { way, interrupted: Arc::clone(&interrupted), ..setup })
        };
        ways.iter().enumerate().map(build).collect()
    }

    fn build(
        args: &CommonArgs,
        demand: Demand,
        clock: RunClock,
        run: RunId,
        recorder: Arc<Recorder>,
    ) -> anyhow::Result<Self> {
        let threads = args.threads();
        file_limit::make_room(demand.connections, threads)?;
        let transport = &args.transport;
        let routes =
            transport.addr.iter().map(|addr| route(addr, args)).collect::<anyhow::Result<Arc<[_]>>>()?;
        check_ports(demand, ports(&routes))?;
        let tls = if transport.plain { None } else { Some(Arc::new(Tls::load(transport)?)) };
        let credentials = Credentials::load(
            args.client_id.clone(),
            args.username.clone(),
            args.password_file.as_deref(),
            args.credentials.as_deref(),
        )?;
        credentials.suffice(demand.numbers)?;
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
        Ok(Self {
            connector: Arc::new(connector),
            threads,
            connect_rate: args.connect_rate,
            connect_in_flight: args.connect_in_flight as usize,
            way: 0,
            server: None,
            recorder,
            agents: None,
            interrupted: Arc::default(),
        })
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

    /// In which way clients connect.
    pub(crate) fn terms(&self) -> Terms {
        Terms {
            way: self.way,
            connect_rate: self.connect_rate,
            connect_in_flight: self.connect_in_flight,
            lean: self.connector.lean,
            clean_start: self.connector.clean_start,
            session_expiry_seconds: self.connector.session_expiry_seconds,
        }
    }

    /// The same run, with clients that connect as `terms` say.
    pub(crate) fn on_terms(&self, terms: Terms) -> Self {
        let setup = self.with_connector(|connector| {
            connector.lean = terms.lean;
            connector.clean_start = terms.clean_start;
            connector.session_expiry_seconds = terms.session_expiry_seconds;
        });
        Self { connect_rate: terms.connect_rate, connect_in_flight: terms.connect_in_flight, ..setup }
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

    /// What has been recorded until now, with what is to be said of the agents.
    pub(crate) fn recorded(&self) -> Recorded {
        let mut recorded = self.recorder.recorded();
        if let Some(agents) = &self.agents {
            agents.compare_clocks_again();
            recorded.warnings.extend(agents.warnings());
            recorded = recorded.with_troubles(agents.troubles());
        }
        recorded
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

fn check_ports(demand: Demand, ports: u64) -> anyhow::Result<()> {
    if demand.ports > ports {
        bail!(
            "the run needs {} ports at a time, since each rests for {} s after its connection, and the source \
             addresses have {ports}: give a larger --source-range, or take fewer clients or a lower rate",
            demand.ports,
            TIME_WAIT.as_secs()
        );
    }
    Ok(())
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
