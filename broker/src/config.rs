//! The configuration: command line over file over defaults, parsed once.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::Deserialize;
use sotto_model::limits::ACL_RULES_PER_TENANT_MAX;
use sotto_model::{AclAction, AclEffect, AclFilter, AclRule, ClientLimits, LimitOutOfRange};
use sotto_storage::retention::RetentionPolicy;

use crate::admission::{AddressLimits, FailedLoginLimits};
use crate::drain::DrainPlan;
use crate::push_config::{Push, PushFile};
use crate::tls::ClientCertificate;

const MQTTS_DEFAULT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8883);
const WSS_DEFAULT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8884);
const PRIVATE_DEFAULT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);
const DATA_DEFAULT: &str = "sotto-data";
/// A hospital, or a part of a mobile network, behind one address.
const CONNECTIONS_PER_ADDRESS_DEFAULT: u32 = 8192;
const CONNECTS_PER_SECOND_DEFAULT: u32 = 200;
/// All of them at once, after the network between was away.
const CONNECTS_BURST_DEFAULT: u32 = 8192;
const FAILED_LOGINS_DEFAULT: u32 = 100;
const FAILED_LOGINS_WINDOW_SECONDS_DEFAULT: u32 = 300;
/// Twenty thousand are gone in ten seconds, and come to other nodes no faster than those take them.
const DRAIN_PER_SECOND_DEFAULT: u32 = 2000;
/// A phone that is off for a holiday misses nothing, whatever is configured.
const RETENTION_MINIMUM_DAYS_DEFAULT: u32 = 30;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("read configuration file {path}: {reason}")]
    Read { path: String, reason: std::io::ErrorKind },
    #[error("configuration file {path}: {reason}")]
    Parse { path: String, reason: String },
    #[error("read {key} {path}: {reason}")]
    Secret { key: &'static str, path: String, reason: std::io::ErrorKind },
    #[error("{0}")]
    Refused(&'static str),
    #[error("limits.{0}")]
    Limit(#[from] LimitOutOfRange),
    #[error("acl: tenant {0} has more than {ACL_RULES_PER_TENANT_MAX} rules")]
    TooManyRules(String),
}

/// The file, as written. Unknown keys are refused by name.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "the fields are the file's keys")]
struct File {
    environment: Option<Environment>,
    data: Option<PathBuf>,
    mqtts: Option<SocketAddr>,
    wss: Option<SocketAddr>,
    private: Option<SocketAddr>,
    plain: Option<SocketAddr>,
    lab: Option<bool>,
    demo: Option<bool>,
    database_url_file: Option<PathBuf>,
    connections_max: Option<usize>,
    memory_bytes_max: Option<u64>,
    #[serde(default)]
    proxy_protocol_from: Vec<IpNet>,
    #[serde(default)]
    addresses: AddressesFile,
    #[serde(default)]
    drain: DrainFile,
    #[serde(default)]
    tls: Tls,
    #[serde(default)]
    push: PushFile,
    #[serde(default)]
    limits: LimitsFile,
    #[serde(default)]
    retention: RetentionFile,
    #[serde(default)]
    acl: Vec<AclFile>,
}

/// Each in the place of the default.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitsFile {
    packet_bytes_max: Option<u32>,
    topic_bytes_max: Option<usize>,
    topic_levels_max: Option<usize>,
    receive_maximum: Option<u16>,
    topic_alias_maximum: Option<u16>,
    inflight_max: Option<u16>,
    queue_records_max: Option<usize>,
    queue_bytes_max: Option<usize>,
    subscriptions_per_session_max: Option<usize>,
    sessions_per_tenant_max: Option<usize>,
    session_expiry_seconds_max: Option<u32>,
    keep_alive_seconds_max: Option<u16>,
}

impl LimitsFile {
    fn checked(&self) -> Result<ClientLimits, LimitOutOfRange> {
        let default = ClientLimits::DEFAULT;
        let limits = ClientLimits {
            packet_bytes_max: self.packet_bytes_max.unwrap_or(default.packet_bytes_max),
            topic_bytes_max: self.topic_bytes_max.unwrap_or(default.topic_bytes_max),
            topic_levels_max: self.topic_levels_max.unwrap_or(default.topic_levels_max),
            receive_maximum: self.receive_maximum.unwrap_or(default.receive_maximum),
            topic_alias_maximum: self.topic_alias_maximum.unwrap_or(default.topic_alias_maximum),
            inflight_max: self.inflight_max.unwrap_or(default.inflight_max),
            queue_records_max: self.queue_records_max.unwrap_or(default.queue_records_max),
            queue_bytes_max: self.queue_bytes_max.unwrap_or(default.queue_bytes_max),
            subscriptions_per_session_max: self
                .subscriptions_per_session_max
                .unwrap_or(default.subscriptions_per_session_max),
            sessions_per_tenant_max: self.sessions_per_tenant_max.unwrap_or(default.sessions_per_tenant_max),
            session_expiry_seconds_max: self
                .session_expiry_seconds_max
                .unwrap_or(default.session_expiry_seconds_max),
            keep_alive_seconds_max: self.keep_alive_seconds_max.unwrap_or(default.keep_alive_seconds_max),
        };
        limits.check().map(|()| limits)
    }
}

/// Each in the place of the default.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RetentionFile {
    days: Option<u32>,
    bytes: Option<u64>,
    minimum_days: Option<u32>,
}

impl RetentionFile {
    fn checked(&self) -> Result<RetentionPolicy, ConfigError> {
        let policy = RetentionPolicy {
            days: self.days.unwrap_or(0),
            bytes: self.bytes.unwrap_or(0),
            minimum_days: self.minimum_days.unwrap_or(RETENTION_MINIMUM_DAYS_DEFAULT),
        };
        if !policy.allows_days(policy.days) {
            return Err(ConfigError::Refused(
                "retention.days must be 0 (never) or at least retention.minimum_days",
            ));
        }
        Ok(policy)
    }
}

/// Each in the place of the default.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct AddressesFile {
    connections_max: Option<u32>,
    connects_per_second: Option<u32>,
    connects_burst: Option<u32>,
    failed_logins_max: Option<u32>,
    failed_logins_window_seconds: Option<u32>,
}

impl AddressesFile {
    /// In the lab load comes from few addresses: it is not limited unless it is said.
    fn limits(&self, lab: bool) -> AddressLimits {
        let default = |limit| if lab { 0 } else { limit };
        AddressLimits {
            connections_max: self.connections_max.unwrap_or(default(CONNECTIONS_PER_ADDRESS_DEFAULT)),
            connects_per_second: self.connects_per_second.unwrap_or(default(CONNECTS_PER_SECOND_DEFAULT)),
            connects_burst: self.connects_burst.unwrap_or(CONNECTS_BURST_DEFAULT),
        }
    }

    fn failed_logins(&self) -> FailedLoginLimits {
        FailedLoginLimits {
            failures_max: self.failed_logins_max.unwrap_or(FAILED_LOGINS_DEFAULT),
            window_seconds: self.failed_logins_window_seconds.unwrap_or(FAILED_LOGINS_WINDOW_SECONDS_DEFAULT),
        }
    }
}

/// Each in the place of the default.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct DrainFile {
    per_second: Option<u32>,
    grace_seconds: Option<u32>,
    to: Option<String>,
}

impl DrainFile {
    fn plan(self) -> DrainPlan {
        DrainPlan {
            per_second: self.per_second.unwrap_or(DRAIN_PER_SECOND_DEFAULT),
            grace_seconds: self.grace_seconds.unwrap_or(0),
            to: self.to,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Environment {
    #[default]
    Dev,
    Prod,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tls {
    /// PEM, the server's certificate first; made at the first start where absent.
    pub(crate) certificate_file: Option<PathBuf>,
    pub(crate) key_file: Option<PathBuf>,
    /// 32 bytes, the same for all nodes that resume each other's TLS sessions; made at the first start where absent.
    pub(crate) ticket_key_file: Option<PathBuf>,
    #[serde(default)]
    pub(crate) client_certificate: ClientCertificate,
    /// PEM: who signs client certificates.
    pub(crate) client_ca_file: Option<PathBuf>,
    /// PEM: which of them are revoked.
    pub(crate) client_crl_file: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AclFile {
    tenant: String,
    effect: AclEffect,
    action: AclAction,
    filter: AclFilter,
}

/// An access rule of the configuration: asked before those that the tenant has in the store.
#[derive(Clone)]
pub(crate) struct ConfiguredRule {
    /// By name; it is looked up once the store is open.
    pub(crate) tenant: String,
    pub(crate) rule: AclRule,
}

/// What the command line says, each over what the file says.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Flags {
    /// Configuration file (TOML); see sotto.example.toml
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Folder for database, certificates and keys [default: ./sotto-data]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Use this PostgreSQL instead of the embedded store (postgres://…)
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) database: Option<String>,
    /// Private listener: metrics, health, administration [default: 127.0.0.1:9464]
    #[arg(long, global = true, value_name = "ADDR")]
    pub(crate) private: Option<SocketAddr>,
}

#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct ServeFlags {
    /// MQTT over TLS [default: 127.0.0.1:8883]
    #[arg(long, value_name = "ADDR")]
    pub(crate) mqtts: Option<SocketAddr>,
    /// MQTT over WebSocket over TLS, path /mqtt [default: 127.0.0.1:8884]
    #[arg(long, value_name = "ADDR")]
    pub(crate) wss: Option<SocketAddr>,
    /// Add the tenant `lab`: anonymous, no topic is guarded. For test suites and benchmarks
    #[arg(long)]
    pub(crate) lab: bool,
    /// MQTT without TLS; needs --lab
    #[arg(long, value_name = "ADDR")]
    pub(crate) plain: Option<SocketAddr>,
}

pub(crate) struct Config {
    pub(crate) data: PathBuf,
    pub(crate) mqtts: SocketAddr,
    pub(crate) wss: SocketAddr,
    pub(crate) private: SocketAddr,
    pub(crate) plain: Option<SocketAddr>,
    pub(crate) lab: bool,
    /// Make the demo tenant in an empty store.
    pub(crate) demo: bool,
    /// PostgreSQL; the embedded store where absent.
    pub(crate) database_url: Option<String>,
    /// Fewer than the process may have files open.
    pub(crate) connections_max: Option<usize>,
    /// Resident memory over which nobody is let in.
    pub(crate) memory_bytes_max: Option<u64>,
    /// Load balancers that put a PROXY protocol header before each connection.
    pub(crate) proxy_protocol_from: Vec<IpNet>,
    pub(crate) addresses: AddressLimits,
    pub(crate) failed_logins: FailedLoginLimits,
    /// How the node is left.
    pub(crate) drain: DrainPlan,
    pub(crate) tls: Tls,
    pub(crate) push: Push,
    pub(crate) limits: ClientLimits,
    pub(crate) retention: RetentionPolicy,
    /// In the order in which they are asked.
    pub(crate) acl: Vec<ConfiguredRule>,
}

impl Config {
    pub(crate) fn load(flags: &Flags, serve: &ServeFlags) -> Result<Self, ConfigError> {
        let file = match &flags.config {
            Some(path) => parse(path)?,
            None => File::default(),
        };
        let database_url = match (&flags.database, &file.database_url_file) {
            (Some(url), _) => Some(url.clone()),
            (None, Some(path)) => Some(secret("database_url_file", path)?),
            (None, None) => None,
        };
        let extra_ca = match &file.push.extra_ca_file {
            Some(path) => Some(bytes("push.extra_ca_file", path)?),
            None => None,
        };
        let lab = serve.lab || file.lab.unwrap_or(false);
        let config = Self {
            data: flags.data.clone().or(file.data).unwrap_or_else(|| DATA_DEFAULT.into()),
            mqtts: serve.mqtts.or(file.mqtts).unwrap_or(MQTTS_DEFAULT),
            wss: serve.wss.or(file.wss).unwrap_or(WSS_DEFAULT),
            private: flags.private.or(file.private).unwrap_or(PRIVATE_DEFAULT),
            plain: serve.plain.or(file.plain),
            lab,
            demo: file.demo.unwrap_or(true),
            database_url,
            connections_max: file.connections_max,
            memory_bytes_max: file.memory_bytes_max,
            proxy_protocol_from: file.proxy_protocol_from,
            addresses: file.addresses.limits(lab),
            failed_logins: file.addresses.failed_logins(),
            drain: file.drain.plan(),
            tls: file.tls,
            push: file.push.read(extra_ca),
            limits: file.limits.checked()?,
            retention: file.retention.checked()?,
            acl: file.acl.into_iter().map(ConfiguredRule::from).collect(),
        };
        config.check(file.environment.unwrap_or_default())?;
        Ok(config)
    }

    fn check(&self, environment: Environment) -> Result<(), ConfigError> {
        if environment == Environment::Prod {
            return Err(ConfigError::Refused(
                "environment \"prod\" needs a key service, and this version has only the local root key",
            ));
        }
        if self.plain.is_some() && !self.lab {
            return Err(ConfigError::Refused("plain: MQTT without TLS is for the lab alone; add lab"));
        }
        if self.tls.certificate_file.is_some() != self.tls.key_file.is_some() {
            return Err(ConfigError::Refused("tls.certificate_file and tls.key_file go together"));
        }
        if self.tls.client_ca_file.is_some() != (self.tls.client_certificate != ClientCertificate::Off) {
            return Err(ConfigError::Refused(
                "tls.client_ca_file and tls.client_certificate \"optional\" or \"required\" go together",
            ));
        }
        if self.tls.client_crl_file.is_some() && self.tls.client_ca_file.is_none() {
            return Err(ConfigError::Refused("tls.client_crl_file needs tls.client_ca_file"));
        }
        self.push.check().map_err(ConfigError::Refused)?;
        if self.connections_max == Some(0) {
            return Err(ConfigError::Refused("connections_max must not be 0"));
        }
        for ConfiguredRule { tenant, .. } in &self.acl {
            if self.acl.iter().filter(|other| other.tenant == *tenant).count() > ACL_RULES_PER_TENANT_MAX {
                return Err(ConfigError::TooManyRules(tenant.clone()));
            }
        }
        Ok(())
    }
}

impl From<AclFile> for ConfiguredRule {
    fn from(AclFile { tenant, effect, action, filter }: AclFile) -> Self {
        Self { tenant, rule: AclRule { effect, action, filter } }
    }
}

fn parse(path: &Path) -> Result<File, ConfigError> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| ConfigError::Read { path: shown.clone(), reason: error.kind() })?;
    toml::from_str(&text).map_err(|error| {
        // The parser's own message names the key; its multi-line excerpt is left out.
        let line = error.span().map_or(0, |span| text[..span.start].matches('\n').count() + 1);
        ConfigError::Parse { path: shown, reason: format!("line {line}: {}", error.message()) }
    })
}

fn secret(key: &'static str, path: &Path) -> Result<String, ConfigError> {
    let bytes = bytes(key, path)?;
    let text = String::from_utf8(bytes).map_err(|_| ConfigError::Secret {
        key,
        path: path.display().to_string(),
        reason: std::io::ErrorKind::InvalidData,
    })?;
    Ok(text.trim_end().to_owned())
}

fn bytes(key: &'static str, path: &Path) -> Result<Vec<u8>, ConfigError> {
    std::fs::read(path).map_err(|error| ConfigError::Secret {
        key,
        path: path.display().to_string(),
        reason: error.kind(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, serve: &ServeFlags) -> Result<Config, ConfigError> {
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        std::fs::write(file.path(), text).expect("write");
        let flags = Flags { config: Some(file.path().into()), ..Flags::default() };
        Config::load(&flags, serve)
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let error =
            load("mqtts = \"127.0.0.1:1\"\nmqqts = 1\n", &ServeFlags::default()).err().expect("refused");
        let text = error.to_string();
        assert!(text.contains("mqqts") && text.contains("line 2") && !text.contains('\n'), "{text}");
    }

    #[test]
    fn a_bad_address_is_refused_with_its_line() {
        let error = load("\nmqtts = \"nowhere\"\n", &ServeFlags::default()).err().expect("refused");
        assert!(error.to_string().contains("line 2"), "{error}");
    }

    #[test]
    fn plain_mqtt_is_refused_outside_the_lab() {
        assert!(load("plain = \"127.0.0.1:1883\"", &ServeFlags::default()).is_err());
        assert!(load("plain = \"127.0.0.1:1883\"\nlab = true", &ServeFlags::default()).is_ok());
    }

    #[test]
    fn prod_is_refused_without_a_key_service() {
        let error = load("environment = \"prod\"", &ServeFlags::default()).err().expect("refused");
        assert!(error.to_string().contains("key service"));
    }

    #[test]
    fn a_limit_out_of_range_is_refused_by_name() {
        let error = load("[limits]\nreceive_maximum = 0\n", &ServeFlags::default()).err().expect("refused");
        assert_eq!(error.to_string(), "limits.receive_maximum must be 1 to 128");
        let config = load("[limits]\ntopic_levels_max = 8\n", &ServeFlags::default()).expect("valid");
        assert_eq!(config.limits, ClientLimits { topic_levels_max: 8, ..ClientLimits::DEFAULT });
    }

    #[test]
    fn retention_below_the_minimum_is_refused_by_name() {
        let load = |text: &str| load(text, &ServeFlags::default());
        let none = load("").expect("valid").retention;
        assert_eq!((none.days, none.bytes), (0, 0), "nothing is deleted unless it is said");
        for text in ["[retention]\ndays = 29\n", "[retention]\ndays = 59\nminimum_days = 60\n"] {
            let error = load(text).err().expect("refused").to_string();
            assert!(error.contains("retention.days") && error.contains("minimum_days"), "{error}");
        }
        let policy = load("[retention]\ndays = 1\nbytes = 5\nminimum_days = 0\n").expect("valid").retention;
        assert_eq!(policy, RetentionPolicy { days: 1, bytes: 5, minimum_days: 0 });
        let error = load("[retention]\nhours = 1\n").err().expect("refused").to_string();
        assert!(error.contains("hours"), "{error}");
    }

    #[test]
    fn access_rules_keep_their_order_and_their_mistakes_are_named() {
        let rule = |effect: &str, action: &str, filter: &str| {
            format!(
                "[[acl]]\ntenant = \"lab\"\neffect = \"{effect}\"\naction = \"{action}\"\nfilter = \"{filter}\"\n"
            )
        };
        let two = rule("deny", "all", "a/%u/#") + &rule("allow", "subscribe", "a/#");
        let config = load(&two, &ServeFlags::default()).expect("valid");
        let filters: Vec<_> = config.acl.iter().map(|configured| configured.rule.filter.as_str()).collect();
        assert_eq!(filters, ["a/%u/#", "a/#"]);
        for (text, culprit) in [
            (rule("permit", "all", "a"), "permit"),
            (rule("deny", "read", "a"), "read"),
            (rule("deny", "all", "a/#/b"), "wildcard"),
            (rule("deny", "all", "a/%x"), "'%'"),
            ("[[acl]]\ntenant = \"lab\"\ntopic = \"a\"\n".to_owned(), "topic"),
            (rule("deny", "all", "a").repeat(ACL_RULES_PER_TENANT_MAX + 1), "lab"),
        ] {
            let error = load(&text, &ServeFlags::default()).err().expect("refused").to_string();
            assert!(error.contains(culprit) && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn the_command_line_goes_before_the_file() {
        let serve =
            ServeFlags { mqtts: Some("127.0.0.1:2".parse().expect("address")), ..ServeFlags::default() };
        let config = load("mqtts = \"127.0.0.1:1\"", &serve).expect("valid");
        assert_eq!(config.mqtts.port(), 2);
    }

    #[test]
    fn the_example_holds_every_key_and_its_default() {
        let example = include_str!("../../sotto.example.toml");
        let uncommented: String = example
            .lines()
            .map(|line| {
                line.strip_prefix("# ")
                    .filter(|rest| rest.contains(" = ") || rest.starts_with('['))
                    .unwrap_or(line)
            })
            .fold(String::new(), |text, line| text + line + "\n");
        let file: File = toml::from_str(&uncommented).expect("every key of the example is known");
        assert_eq!(file.mqtts, Some(MQTTS_DEFAULT));
        assert_eq!(file.wss, Some(WSS_DEFAULT));
        assert_eq!(file.private, Some(PRIVATE_DEFAULT));
        assert_eq!(file.data.as_deref(), Some(Path::new(DATA_DEFAULT)));
        assert!(file.database_url_file.is_some() && file.push.extra_ca_file.is_some());
        assert_eq!(file.limits.checked(), Ok(ClientLimits::DEFAULT));
        assert!(!format!("{:?}", file.limits).contains("None"), "every limit is in the example");
        assert_eq!(file.acl.len(), 2);
        assert!(!format!("{:?}", file.addresses).contains("None"), "every limit is in the example");
        let unsaid = AddressesFile::default();
        assert_eq!(file.addresses.limits(false), unsaid.limits(false));
        assert_eq!(file.addresses.failed_logins(), unsaid.failed_logins());
        assert_eq!(file.proxy_protocol_from.len(), 1);
        assert!(file.drain.to.is_some());
        let drain = DrainFile { to: None, ..file.drain }.plan();
        assert_eq!(drain, DrainFile::default().plan());
    }

    #[test]
    fn what_client_certificates_are_checked_by_goes_together() {
        let load = |text: &str| load(&format!("[tls]\n{text}"), &ServeFlags::default());
        for text in [
            "client_certificate = \"required\"",
            "client_ca_file = \"ca\"",
            "client_certificate = \"off\"\nclient_ca_file = \"ca\"",
            "client_crl_file = \"crl\"",
        ] {
            assert!(load(text).err().expect("refused").to_string().contains("client_ca_file"), "{text}");
        }
        let all = "client_certificate = \"optional\"\nclient_ca_file = \"ca\"\nclient_crl_file = \"crl\"";
        assert_eq!(load(all).expect("valid").tls.client_certificate, ClientCertificate::Optional);
    }

    #[test]
    fn addresses_are_limited_but_in_the_lab() {
        let load = |text: &str| load(text, &ServeFlags::default()).expect("valid").addresses;
        let none = AddressLimits { connections_max: 0, connects_per_second: 0, connects_burst: 8192 };
        assert_eq!(load("lab = true"), none);
        assert_eq!(load("lab = true\n[addresses]\nconnections_max = 3\n").connections_max, 3);
        assert_ne!(load(""), none);
    }
}
