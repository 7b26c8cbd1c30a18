//! A broker, its database, and what can be done to both.

use std::sync::Arc;
use std::time::Duration;

use sotto_postgres::testing::{Durability, Server};
use tokio::task::{JoinSet, block_in_place};
use tokio::time::sleep;

use crate::dice::Dice;
use crate::fault::Fault;
use crate::ledger::{Ledger, TopicNumber};
use crate::link::Place;
use crate::postgres_line::{PostgresLine, socket};
use crate::proxy::{Cut, Proxy};
use crate::shim::{Room, Shim};
use crate::support::database::{Database, Kind};
use crate::support::house::House;
use crate::support::patience::{until, until_within};
use crate::support::phone::Login;
use crate::witness::Witness;

pub(crate) struct World {
    pub(crate) house: House,
    pub(crate) shim: Option<Shim>,
    server: Option<Server>,
    proxy: Option<Proxy>,
}

/// Who watches while the database is away.
pub(crate) struct Watch<'w> {
    pub(crate) place: &'w Place,
    pub(crate) ledger: &'w Ledger,
    /// As whom the witness publishes, and where.
    pub(crate) publisher: usize,
    pub(crate) topic: TopicNumber,
    pub(crate) logins: &'w [Login; 3],
    /// For what is not stored.
    pub(crate) pulse: &'w str,
}

/// Connections that PostgreSQL takes, all of which one fault takes away.
const CONNECTIONS_MAX: usize = 40;
/// A disk on which COMMIT takes so long.
const SLOW_SYNC: Duration = Duration::from_millis(150);
/// How long a database stays away once readiness has said so.
const PULSES_WHILE_AWAY: u32 = 5;
const PULSE_EVERY: Duration = Duration::from_millis(200);
/// Readiness says no within this: a ping that hangs is given up after 2 s, a commit that hangs after 5 s.
const NOTICED_WITHIN: Duration = Duration::from_secs(15);
/// What was committed at the last moment is acknowledged within this.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

impl World {
    pub(crate) async fn create(kind: Kind) -> Self {
        let shim = Shim::compile();
        let environment = shim.as_ref().map(Shim::environment).unwrap_or_default();
        if kind == Kind::Sqlite {
            let mut house = House::closed(Database::Sqlite, "");
            house.environment = environment;
            return Self { house, shim, server: None, proxy: None };
        }
        let settings = format!("max_connections = {CONNECTIONS_MAX}\nshared_buffers = '32MB'\n");
        let server = block_in_place(|| Server::start_with(Durability::Full, &settings, environment));
        let proxy = Proxy::to(socket(server.folder())).await;
        let url = format!("postgres://sotto@127.0.0.1:{}/postgres?sslmode=disable", proxy.port());
        let house = House::closed(Database::Own(url), "");
        Self { house, shim, server: Some(server), proxy: Some(proxy) }
    }

    pub(crate) fn url_past_the_proxy(&self) -> Option<String> {
        self.server.as_ref().map(|server| server.url("postgres"))
    }

    pub(crate) fn commits_cut(&self) -> u64 {
        self.proxy.as_ref().map_or(0, Proxy::commits_cut)
    }

    pub(crate) async fn suffer(&mut self, fault: Fault, watch: &Watch<'_>, dice: &mut Dice) {
        match fault {
            Fault::BrokerKilled => self.house.kill_and_start().await,
            Fault::BrokerRestarted => {
                assert_eq!(self.house.terminate().await.code(), Some(0));
                self.house.start().await;
            }
            Fault::BothKilled => {
                // In either order: the broker outlives its database for a moment, or its last batch is still
                // being committed.
                if dice.one_in(2) {
                    self.kill_server();
                    self.house.kill().await;
                } else {
                    self.house.kill().await;
                    self.kill_server();
                }
                let pause = dice.millis(200, 1_000);
                let Self { house, server, .. } = self;
                let server = server.as_ref().expect("PostgreSQL");
                let comes = async {
                    sleep(pause).await;
                    block_in_place(|| server.resume());
                };
                tokio::join!(house.start(), comes);
            }
            // It comes back at once, or stays away.
            Fault::ServerKilled if dice.one_in(2) => {
                self.kill_server();
                self.resume_server();
            }
            Fault::ServerRestarted => {
                block_in_place(|| self.server().stop_orderly());
                self.resume_server();
            }
            Fault::BackendsTerminated => {
                let mut line = self.line().await;
                line.run(TERMINATE).await.expect("terminate");
            }
            Fault::ConnectionsCut => self.proxy().cut_all(),
            Fault::ConnectionsHung => {
                // Statements under way are given up, and done again on other connections; then the first ones
                // arrive after all.
                let mut witness = self.witness(watch).await;
                self.proxy().hang();
                witness.ask(watch.ledger, watch.publisher, watch.topic).await;
                witness.pulse().await;
                witness.hears_the_answer(watch.ledger).await;
                self.proxy().unhang();
            }
            Fault::CutAtCommit => {
                let cuts = self.commits_cut();
                self.proxy().cut_at_commit(Cut { after: dice.millis(0, 8) });
                until("a commit was cut off", async || self.commits_cut() > cuts).await;
            }
            Fault::DiskSlow => {
                let (shim, acknowledged) = (self.shim(), watch.ledger.acknowledgements());
                let hits = shim.hits();
                shim.slow_syncs_by(SLOW_SYNC);
                until("slow commits are acknowledged", async || {
                    shim.hits() > hits + 5 && watch.ledger.acknowledgements() > acknowledged
                })
                .await;
                shim.slow_syncs_by(Duration::ZERO);
            }
            Fault::ServerKilled | Fault::ConnectionsHeld | Fault::DiskFull | Fault::ReadOnly => {
                let mut line = match fault {
                    Fault::ReadOnly => Some(self.line().await),
                    _ => None,
                };
                let witness = self.witness(watch).await;
                match (fault, &mut line) {
                    (Fault::ReadOnly, Some(line)) => set_read_only(line, "on").await,
                    (Fault::ConnectionsHeld, _) => self.proxy().hold(true),
                    (Fault::DiskFull, _) => {
                        // The pages of a relation have room for a while; a log that is written anew has not.
                        let is_server = self.server.is_some();
                        self.shim().leave(if is_server { Room::NoGrowth } else { Room::None });
                    }
                    _ => self.kill_server(),
                }
                let witness = self.is_away(witness, watch).await;
                match (fault, &mut line) {
                    (Fault::ReadOnly, Some(line)) => set_read_only(line, "off").await,
                    (Fault::ConnectionsHeld, _) => self.proxy().hold(false),
                    (Fault::DiskFull, _) => self.shim().leave(Room::Enough),
                    _ => self.resume_server(),
                }
                self.is_back(witness, watch).await;
            }
            Fault::ConnectionsTaken => {
                let witness = self.witness(watch).await;
                let taken = self.take_connections().await;
                let witness = self.is_away(witness, watch).await;
                drop(taken);
                self.is_back(witness, watch).await;
            }
        }
    }

    // ---- a database that is away ----

    async fn witness(&self, watch: &Watch<'_>) -> Witness {
        let pulse = watch.pulse.to_owned();
        let mut witness = Witness::arrive(watch.place, watch.logins, pulse).await;
        witness.pulse().await;
        witness
    }

    async fn is_away(&self, mut witness: Witness, watch: &Watch<'_>) -> Witness {
        let house = &self.house;
        until_within(NOTICED_WITHIN, "the broker is not ready", async || {
            house.get("/health/ready").await.0 == 503
        })
        .await;
        sleep(LAST_ANSWERS).await;
        let acknowledged = watch.ledger.acknowledgements();
        witness.ask(watch.ledger, watch.publisher, watch.topic).await;
        for _ in 0..PULSES_WHILE_AWAY {
            witness.pulse().await;
            witness.hears_no_answer(PULSE_EVERY).await;
        }
        assert_eq!(house.get("/health/ready").await.0, 503, "the database is away");
        assert_eq!(watch.ledger.acknowledgements(), acknowledged, "acknowledged without a database");
        witness
    }

    async fn is_back(&self, witness: Witness, watch: &Watch<'_>) {
        witness.hears_the_answer(watch.ledger).await;
        let house = &self.house;
        until("the broker is ready again", async || house.get("/health/ready").await.0 == 200).await;
    }

    // ---- PostgreSQL ----

    pub(crate) fn restart_server(&self) {
        self.kill_server();
        self.resume_server();
    }

    fn server(&self) -> &Server {
        self.server.as_ref().expect("PostgreSQL")
    }

    fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().expect("PostgreSQL")
    }

    fn shim(&self) -> &Shim {
        self.shim.as_ref().expect("faults that need it are skipped")
    }

    fn kill_server(&self) {
        block_in_place(|| self.server().kill());
    }

    fn resume_server(&self) {
        block_in_place(|| self.server().resume());
    }

    async fn line(&self) -> PostgresLine {
        let socket = socket(self.server().folder());
        PostgresLine::open(&socket).await.expect("a line to PostgreSQL")
    }

    /// Every place, the broker's own included. They are free again when this is dropped.
    async fn take_connections(&self) -> JoinSet<()> {
        let mut line = self.line().await;
        let socket = Arc::new(socket(self.server().folder()));
        let mut taken = JoinSet::new();
        for _ in 0..CONNECTIONS_MAX {
            let socket = socket.clone();
            taken.spawn(async move {
                let _line = loop {
                    match PostgresLine::open(&socket).await {
                        Some(line) => break line,
                        None => sleep(Duration::from_millis(2)).await,
                    }
                };
                std::future::pending::<()>().await;
            });
        }
        until("the broker has no connection left", async || {
            line.run(TERMINATE).await.expect("terminate");
            line.run(OTHERS).await.expect("count") == [CONNECTIONS_MAX.to_string()]
        })
        .await;
        taken.spawn(async move {
            let _line = line;
            std::future::pending::<()>().await;
        });
        taken
    }
}

const TERMINATE: &str =
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'sotto'";

const OTHERS: &str = "SELECT count(*) FROM pg_stat_activity \
     WHERE backend_type = 'client backend' AND application_name <> 'sotto'";

async fn set_read_only(line: &mut PostgresLine, read_only: &str) {
    let set = format!("ALTER SYSTEM SET default_transaction_read_only = {read_only}");
    line.run(&set).await.expect("set");
    line.run("SELECT pg_reload_conf()").await.expect("reload");
}
