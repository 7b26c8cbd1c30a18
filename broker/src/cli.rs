//! The command line.

#![expect(clippy::disallowed_macros, reason = "it is a command line: it prints")]

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use serde_json::Value;
use sotto_model::{AclAction, AclEffect, AclRuleId, Clock, ConversationId, DeviceId};
use sotto_storage::push_registry::Platform;
use sotto_wakeup::PushOutcome;
use tokio::signal::unix::{Signal, SignalKind};
use tokio::sync::Notify;
use zeroize::Zeroizing;

use crate::app::{App, Backend, install_metrics, open_keyring, read_token};
use crate::clock::SystemClock;
use crate::config::{Config, Flags, ServeFlags};
use crate::data_dir::{DataDir, DataDirError};
use crate::operation::{NewTarget, Operation};
use crate::operations::Operations;
use crate::push_services::PushServices;
use crate::registrar::Registrar;
use crate::store_command::StoreCommand;
use crate::{demo, logging};

/// A running broker that does not answer within this is not asked any longer.
const REQUEST_MAX: Duration = Duration::from_secs(30);
const AUDIT_ROWS_DEFAULT: usize = 100;

/// An MQTT 3.1.1 and 5.0 broker for mobile messaging in healthcare
#[derive(Parser)]
#[command(name = "sotto", version)]
pub(crate) struct Cli {
    #[command(flatten)]
    flags: Flags,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Option<Commands>,
}

#[derive(Subcommand)]
enum Commands {
    /// Serve (also without any command)
    Serve(ServeFlags),
    /// Validate the configuration and say what `serve` would do
    Check(ServeFlags),
    /// Tenants
    #[command(subcommand)]
    Tenant(TenantCommand),
    /// Users of a tenant
    #[command(subcommand)]
    User(UserCommand),
    /// Conversations of a tenant
    #[command(subcommand)]
    Conversation(ConversationCommand),
    /// Members of a conversation
    #[command(subcommand)]
    Member(MemberCommand),
    /// Devices of a user
    #[command(subcommand)]
    Device(DeviceCommand),
    /// Waking sleeping devices
    #[command(subcommand)]
    Push(PushCommand),
    /// Access rules of a tenant, for topics outside conversations and inboxes
    #[command(subcommand)]
    Acl(AclCommand),
    /// Send the clients of the running broker away, and end it
    Drain(DrainFlags),
    /// Certificates of the running broker
    #[command(subcommand)]
    Tls(TlsCommand),
    /// The store as a whole: check it, back it up
    #[command(subcommand)]
    Store(StoreCommand),
    /// The newest audit rows
    Audit {
        #[arg(long)]
        tenant: Option<String>,
        #[arg(long, default_value_t = AUDIT_ROWS_DEFAULT)]
        limit: usize,
    },
}

#[derive(Subcommand)]
enum TenantCommand {
    Add {
        tenant: String,
    },
    /// With how long each is kept, and where its log begins
    List,
    /// How long a tenant's messages are kept; what is not named stays as it is
    Retention {
        tenant: String,
        #[command(flatten)]
        limits: RetentionFlags,
    },
    /// Legal hold: no message of the tenant is deleted
    Hold {
        tenant: String,
        hold: OnOff,
    },
}

#[derive(clap::Args)]
#[group(required = true, multiple = true)]
struct RetentionFlags {
    /// Delete messages after so many days; 0: never for their age
    #[arg(long, value_name = "N")]
    days: Option<u32>,
    /// Delete the oldest messages over so many sealed bytes; 0: never for their size
    #[arg(long, value_name = "N")]
    bytes: Option<u64>,
    /// As configured, but for what else is named
    #[arg(long)]
    default: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum OnOff {
    On,
    Off,
}

#[derive(Subcommand)]
enum UserCommand {
    Add {
        #[arg(long)]
        tenant: String,
        user: String,
        #[command(flatten)]
        password: PasswordSource,
    },
    List {
        #[arg(long)]
        tenant: String,
    },
    Remove {
        #[arg(long)]
        tenant: String,
        user: String,
    },
    Password {
        #[arg(long)]
        tenant: String,
        user: String,
        #[command(flatten)]
        password: PasswordSource,
    },
}

#[derive(clap::Args)]
struct PasswordSource {
    /// File that holds the password; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    password_file: PathBuf,
}

#[derive(Subcommand)]
enum ConversationCommand {
    Add {
        #[arg(long)]
        tenant: String,
        /// A UUID; drawn where absent
        #[arg(long)]
        id: Option<ConversationId>,
    },
    List {
        #[arg(long)]
        tenant: String,
    },
    Remove {
        #[arg(long)]
        tenant: String,
        conversation: ConversationId,
    },
}

#[derive(Subcommand)]
enum MemberCommand {
    Add {
        #[arg(long)]
        tenant: String,
        #[arg(long)]
        conversation: ConversationId,
        user: String,
    },
    List {
        #[arg(long)]
        tenant: String,
        #[arg(long)]
        conversation: ConversationId,
    },
    Remove {
        #[arg(long)]
        tenant: String,
        #[arg(long)]
        conversation: ConversationId,
        user: String,
    },
    /// Whether the conversation wakes the user's devices urgently
    Mute {
        #[arg(long)]
        tenant: String,
        #[arg(long)]
        conversation: ConversationId,
        user: String,
        mute: OnOff,
    },
}

#[derive(Subcommand)]
enum DeviceCommand {
    List {
        #[arg(long)]
        tenant: String,
        #[arg(long)]
        user: String,
    },
    /// With its session and its push registration
    Remove {
        #[command(flatten)]
        of: DeviceOf,
    },
}

#[derive(clap::Args)]
struct DeviceOf {
    #[arg(long)]
    tenant: String,
    #[arg(long)]
    user: String,
    #[arg(long)]
    device: String,
}

#[derive(Subcommand)]
enum PushCommand {
    /// Say how a device is to be woken, in the place of what it had
    Register {
        #[command(flatten)]
        of: DeviceOf,
        /// apns, fcm, web_push or unified_push
        #[arg(long, default_value_t = Platform::UnifiedPush.as_str().to_owned())]
        platform: String,
        /// APNs topic or FCM project, where several are configured
        #[arg(long)]
        app: Option<String>,
        #[command(flatten)]
        target: TargetFlags,
    },
    Unregister {
        #[command(flatten)]
        of: DeviceOf,
    },
    List {
        #[arg(long)]
        tenant: String,
    },
    /// Every way to a push service: whether it works, and how many wakeups wait
    Status,
    /// Wake a device, whether it sleeps or not, and say what its push service answered
    Test {
        #[command(flatten)]
        of: DeviceOf,
        /// As for a muted conversation
        #[arg(long)]
        low: bool,
    },
    /// Wakeups that were given up
    DeadLetters {
        #[command(subcommand)]
        command: Option<DeadLettersCommand>,
    },
}

#[derive(Subcommand)]
enum DeadLettersCommand {
    /// Try them again, where the device still sleeps
    Replay {
        /// Those of one tenant
        #[arg(long)]
        tenant: Option<String>,
        /// Those of one device of it
        #[arg(long, requires = "tenant", value_name = "ID")]
        device: Option<DeviceId>,
    },
}

#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct TargetFlags {
    /// Where a browser or a UnifiedPush distributor is reached
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// File that holds the token of APNs or FCM; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

#[derive(clap::Args)]
struct DrainFlags {
    /// Clients sent away a second; 0: all at once [default: as configured]
    #[arg(long, value_name = "N")]
    rate: Option<u32>,
    /// Seconds between saying that it is not ready and sending clients away [default: as configured]
    #[arg(long, value_name = "N")]
    grace: Option<u32>,
    /// Tell version 5 clients to use this server (Server Reference)
    #[arg(long, value_name = "SERVER")]
    to: Option<String>,
}

#[derive(Subcommand)]
enum TlsCommand {
    /// Read certificate, key, client CA and CRL anew; nobody is disconnected
    Reload,
}

#[derive(Subcommand)]
enum AclCommand {
    /// The rules in the order in which they are asked: the first that matches decides
    List { tenant: String },
    /// One more rule
    Add {
        tenant: String,
        /// allow or deny
        effect: AclEffect,
        /// publish, subscribe (and receive) or all
        action: AclAction,
        /// Topic filter; %u is the user's id, %c the Client Identifier
        filter: String,
        /// Before the rule at this position; at the end where absent
        #[arg(long, value_name = "N")]
        position: Option<usize>,
    },
    /// One rule less
    Remove {
        tenant: String,
        /// As `list` says
        id: AclRuleId,
    },
}

impl Cli {
    pub(crate) async fn run(self) -> Result<()> {
        let Self { flags, json, command } = self;
        match command {
            None => serve(&flags, &ServeFlags::default(), json).await,
            Some(Commands::Serve(serve_flags)) => serve(&flags, &serve_flags, json).await,
            Some(Commands::Check(serve_flags)) => check(&flags, &serve_flags, json),
            Some(Commands::Store(command)) => {
                command.run(&Config::load(&flags, &ServeFlags::default())?, json).await
            }
            Some(Commands::Drain(DrainFlags { rate, grace, to })) => {
                let plan = serde_json::json!({"per_second": rate, "grace_seconds": grace, "to": to});
                // It takes as long as it takes.
                print_answer(&ask(&running(&flags)?, "/v1/drain", &plan, None).await?, json);
                Ok(())
            }
            Some(Commands::Tls(TlsCommand::Reload)) => {
                let answer =
                    ask(&running(&flags)?, "/v1/tls/reload", &Value::Null, Some(REQUEST_MAX)).await?;
                print_answer(&answer, json);
                Ok(())
            }
            Some(command) => {
                let is_test = matches!(command, Commands::Push(PushCommand::Test { .. }));
                let answer = administer(&flags, operation(command)?).await?;
                print_answer(&answer, json);
                if is_test && answer["outcome"] != PushOutcome::Delivered.as_str() {
                    bail!("the push was not delivered");
                }
                Ok(())
            }
        }
    }
}

async fn serve(flags: &Flags, serve_flags: &ServeFlags, json: bool) -> Result<()> {
    let config = Config::load(flags, serve_flags)?;
    let clock = Arc::new(SystemClock::new());
    logging::install(clock.clone());
    let mut signals = Signals::listen().context("wait for signals")?;
    let plan = config.drain.clone();
    let app = tokio::select! {
        started = App::start(config, clock, install_metrics()?) => started?,
        // It may be waiting for its database.
        () = signals.next() => return Ok(()),
    };
    print_start(&app, json);
    let departure = app.departure.clone();
    let watching = departure.clone();
    // The first signal asks it to leave, any other to hurry.
    tokio::spawn(async move {
        loop {
            signals.next().await;
            watching.ask(plan.clone());
        }
    });
    let plan = departure.asked().await;
    tracing::info!(event = "shutting_down", "shutting down");
    app.shut_down(&plan).await;
    Ok(())
}

/// What ends a process, but for SIGKILL.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        let terminate = tokio::signal::unix::signal(SignalKind::terminate())?;
        let interrupt = tokio::signal::unix::signal(SignalKind::interrupt())?;
        Ok(Self { terminate, interrupt })
    }

    async fn next(&mut self) {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn print_start(app: &App, json: bool) {
    let addresses = &app.addresses;
    if json {
        let plain = addresses.plain.map(|address| address.to_string());
        println!(
            "{}",
            serde_json::json!({
                "mqtts": addresses.mqtts.to_string(), "wss": addresses.wss.to_string(), "plain": plain,
                "private": addresses.private.to_string(), "data": app.data().shown(),
            })
        );
        return;
    }
    println!("sotto {} serves", env!("CARGO_PKG_VERSION"));
    println!("  MQTT over TLS   {}", addresses.mqtts);
    println!("  over WebSocket  wss://{}/mqtt", addresses.wss);
    if let Some(plain) = addresses.plain {
        println!("  MQTT, no TLS    {plain} (lab)");
    }
    println!("  private         http://{}/metrics /health/live /health/ready /v1/…", addresses.private);
    println!("  data            {}", app.data().shown());
    if app.demo
        && let Some(commands) = demo::commands(app.data(), addresses.mqtts.port())
    {
        println!("\n{commands}");
    }
}

fn check(flags: &Flags, serve_flags: &ServeFlags, json: bool) -> Result<()> {
    let config = Config::load(flags, serve_flags)?;
    let store = if config.database_url.is_some() { "PostgreSQL" } else { "embedded SQLite" };
    let tls = if config.tls.certificate_file.is_some() { "configured" } else { "made at the first start" };
    let push = PushServices::open(&config.push, &Arc::new(SystemClock::new()))?;
    let push: Vec<String> = push.services.iter().map(|service| service.lane.to_string()).collect();
    let plan = serde_json::json!({
        "mqtts": config.mqtts.to_string(),
        "wss": config.wss.to_string(),
        "private": config.private.to_string(),
        "plain": config.plain.map(|address| address.to_string()),
        "lab": config.lab,
        "data": config.data.display().to_string(),
        "store": store,
        "certificate": tls,
        "acl_rules": config.acl.len(),
        "push": push.join(" "),
    });
    print_answer(&plan, json);
    Ok(())
}

fn operation(command: Commands) -> Result<Operation> {
    Ok(match command {
        Commands::Serve(_)
        | Commands::Check(_)
        | Commands::Store(_)
        | Commands::Drain(_)
        | Commands::Tls(_) => {
            bail!("not an operation")
        }
        Commands::Tenant(TenantCommand::Add { tenant }) => Operation::TenantAdd { tenant },
        Commands::Tenant(TenantCommand::List) => Operation::TenantList {},
        Commands::Tenant(TenantCommand::Retention { tenant, limits }) => {
            let RetentionFlags { days, bytes, default } = limits;
            Operation::TenantRetention { tenant, days, bytes, default }
        }
        Commands::Tenant(TenantCommand::Hold { tenant, hold }) => {
            Operation::TenantHold { tenant, hold: hold == OnOff::On }
        }
        Commands::User(UserCommand::Add { tenant, user, password }) => {
            Operation::UserAdd { tenant, user, password: password.read()? }
        }
        Commands::User(UserCommand::List { tenant }) => Operation::UserList { tenant },
        Commands::User(UserCommand::Remove { tenant, user }) => Operation::UserRemove { tenant, user },
        Commands::User(UserCommand::Password { tenant, user, password }) => {
            Operation::UserPassword { tenant, user, password: password.read()? }
        }
        Commands::Conversation(ConversationCommand::Add { tenant, id }) => {
            Operation::ConversationAdd { tenant, id }
        }
        Commands::Conversation(ConversationCommand::List { tenant }) => {
            Operation::ConversationList { tenant }
        }
        Commands::Conversation(ConversationCommand::Remove { tenant, conversation }) => {
            Operation::ConversationRemove { tenant, conversation }
        }
        Commands::Member(MemberCommand::Add { tenant, conversation, user }) => {
            Operation::MemberAdd { tenant, conversation, user }
        }
        Commands::Member(MemberCommand::List { tenant, conversation }) => {
            Operation::MemberList { tenant, conversation }
        }
        Commands::Member(MemberCommand::Remove { tenant, conversation, user }) => {
            Operation::MemberRemove { tenant, conversation, user }
        }
        Commands::Member(MemberCommand::Mute { tenant, conversation, user, mute }) => {
            Operation::MemberMute { tenant, conversation, user, muted: mute == OnOff::On }
        }
        Commands::Device(DeviceCommand::List { tenant, user }) => Operation::DeviceList { tenant, user },
        Commands::Device(DeviceCommand::Remove { of }) => {
            Operation::DeviceRemove { tenant: of.tenant, user: of.user, device: of.device }
        }
        Commands::Push(PushCommand::Register { of, platform, app, target }) => {
            let token = target.token_file.as_deref().map(|file| read_secret("token", file)).transpose()?;
            let target = NewTarget {
                platform,
                app,
                token: token.map(Zeroizing::new),
                endpoint: target.endpoint.map(Zeroizing::new),
            };
            Operation::PushRegister { tenant: of.tenant, user: of.user, device: of.device, target }
        }
        Commands::Push(PushCommand::Unregister { of }) => {
            Operation::PushUnregister { tenant: of.tenant, user: of.user, device: of.device }
        }
        Commands::Push(PushCommand::List { tenant }) => Operation::PushList { tenant },
        Commands::Push(PushCommand::Status) => Operation::PushStatus {},
        Commands::Push(PushCommand::Test { of, low }) => {
            Operation::PushTest { tenant: of.tenant, user: of.user, device: of.device, low }
        }
        Commands::Push(PushCommand::DeadLetters { command: None }) => Operation::PushDeadLetters {},
        Commands::Push(PushCommand::DeadLetters {
            command: Some(DeadLettersCommand::Replay { tenant, device }),
        }) => Operation::PushReplay { tenant, device },
        Commands::Acl(AclCommand::List { tenant }) => Operation::AclList { tenant },
        Commands::Acl(AclCommand::Add { tenant, effect, action, filter, position }) => {
            Operation::AclAdd { tenant, effect, action, filter, position }
        }
        Commands::Acl(AclCommand::Remove { tenant, id }) => Operation::AclRemove { tenant, rule: id },
        Commands::Audit { tenant, limit } => Operation::AuditList { tenant, limit },
    })
}

impl PasswordSource {
    fn read(&self) -> Result<String> {
        read_secret("password", &self.password_file)
    }
}

fn read_secret(what: &'static str, file: &Path) -> Result<String> {
    let mut text = String::new();
    if file.as_os_str() == "-" {
        std::io::stdin()
            .read_to_string(&mut text)
            .with_context(|| format!("read the {what} from standard input"))?;
    } else {
        let shown = file.display();
        text = std::fs::read_to_string(file).with_context(|| format!("read {what} file {shown}"))?;
    }
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Through the running broker, or on the store where none runs.
async fn administer(flags: &Flags, operation: Operation) -> Result<Value> {
    let config = Config::load(flags, &ServeFlags::default())?;
    let data = DataDir::at(&config.data);
    if !config.data.is_dir() {
        bail!("data folder {} does not exist: start `sotto` once, or name it with --data", data.shown());
    }
    match data.lock() {
        Err(DataDirError::InUse(_)) => {
            let operation = serde_json::to_value(&operation).context("write the operation")?;
            ask(&data, "/v1/operations", &operation, Some(REQUEST_MAX)).await
        }
        Err(error) => Err(error.into()),
        Ok(_lock) => {
            let clock = Arc::new(SystemClock::new());
            let backend = Backend::open(&data, config.database_url.as_deref()).await?;
            backend.take_up_copy(clock.unix_now()).await?;
            let store = backend.store();
            let keyring = open_keyring(&data, store.clone(), &clock).await?;
            let reach = config.push.reach();
            let registrar = Arc::new(Registrar::new(store.clone(), keyring, clock.clone(), reach));
            let configured_rules = config.acl.into();
            let operations = Operations {
                store,
                clock,
                registrar,
                wakeups: OnceLock::new(),
                configured_rules,
                retention: config.retention,
                retention_changed: Arc::new(Notify::new()),
                live: None,
            };
            let answer = operations.run(operation).await;
            backend.close().await;
            Ok(answer?)
        }
    }
}

/// The data folder of a broker that runs.
fn running(flags: &Flags) -> Result<DataDir> {
    let config = Config::load(flags, &ServeFlags::default())?;
    let data = DataDir::at(&config.data);
    if config.data.is_dir()
        && let Err(DataDirError::InUse(_)) = data.lock()
    {
        return Ok(data);
    }
    bail!("no broker runs on data folder {}", data.shown())
}

async fn ask(data: &DataDir, path: &str, body: &Value, patience: Option<Duration>) -> Result<Value> {
    let address = std::fs::read_to_string(data.private_address())
        .context("a broker uses the data folder, and does not say where its private listener is")?;
    let token = read_token(&data.admin_token()).context("read the administration's token")?;
    let client = reqwest::Client::builder().no_proxy();
    let client = match patience {
        Some(patience) => client.timeout(patience),
        None => client,
    };
    let client = client.build().context("set up HTTP")?;
    let response = client
        .post(format!("http://{}{path}", address.trim()))
        .bearer_auth(token.as_str())
        .json(body)
        .send()
        .await
        .map_err(reqwest::Error::without_url)
        .context("ask the running broker")?;
    let status = response.status();
    let answer: Value =
        response.json().await.map_err(reqwest::Error::without_url).context("read the answer")?;
    if status.is_success() {
        return Ok(answer);
    }
    let reason = answer.get("error").and_then(Value::as_str).unwrap_or("refused without a reason");
    bail!("{reason}")
}

/// One line a row, or JSON.
fn print_answer(answer: &Value, json: bool) {
    match answer {
        _ if json => println!("{answer}"),
        Value::Array(rows) => rows.iter().for_each(print_row),
        row => print_row(row),
    }
}

fn print_row(row: &Value) {
    let Value::Object(fields) = row else {
        println!("{row}");
        return;
    };
    let shown: Vec<String> = fields
        .iter()
        .map(|(name, value)| match value {
            Value::String(text) => format!("{name}={text}"),
            other => format!("{name}={other}"),
        })
        .collect();
    println!("{}", shown.join("  "));
}
