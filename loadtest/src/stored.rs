//! Whether what Sotto has acknowledged is in its database.
//!
//! Payloads are sealed there, so messages are looked up by the names that the load tester gives them: user
//! property `sotto-id`, from run, publisher and sequence number. Of the database only rows are read.

use std::collections::HashMap;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Serialize;
use sotto_model::{PublicationId, TenantId, UserId};
use sotto_storage::publication_key::PublicationKey;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Postgres, QueryBuilder, Row, Sqlite};
use uuid::Uuid;

use crate::ledger::Published;
use crate::limits::LOOKUP_KEYS;
use crate::objectives::Objective;
use crate::template::RunId;

/// `postgres://…`, or `sqlite:` and the path of Sotto's file.
#[derive(Clone, Debug)]
pub(crate) enum DatabaseUrl {
    Postgres(Box<PgConnectOptions>),
    Sqlite(PathBuf),
}

pub(crate) enum Database {
    Postgres(PgConnection),
    Sqlite(SqliteConnection),
}

/// What was found of the messages that a run has sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct StoredReport {
    pub(crate) acknowledged: u64,
    /// Of those, in the log.
    pub(crate) stored: u64,
    /// Acknowledged and not in the log.
    pub(crate) missing: u64,
    /// In the log without having been acknowledged: the answer was lost, or had not come yet.
    pub(crate) unacknowledged: u64,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum StoredError {
    #[error("database cannot be opened: {0}")]
    Open(sqlx::Error),
    #[error("database cannot be read (is it Sotto's?): {0}")]
    Read(sqlx::Error),
    #[error("the database knows no tenant")]
    NoTenant,
}

impl StoredReport {
    /// What is asked for by looking.
    #[expect(clippy::cast_precision_loss, reason = "far less than 2^53")]
    pub(crate) fn objective(self) -> Objective {
        Objective {
            name: "verify_database",
            of: "acknowledged messages missing",
            unit: "",
            limit: 0.0,
            measured: Some(self.missing as f64),
            met: self.missing == 0,
        }
    }
}

/// Who may have sent what a publisher sent.
type Senders = Vec<(TenantId, UserId)>;

/// The name of a message of this run.
pub(crate) fn publication_id(run: RunId, publisher: u32, sequence: u32) -> Uuid {
    /// Of version and variant as RFC 9562 has them for numbers of one's own.
    const VERSION_8: u128 = 0x8 << 76;
    const VARIANT: u128 = 0b10 << 62;
    // Above the version: run and 16 bits of the publisher; below the variant: the rest of it and the sequence.
    let (run, publisher, sequence) = (u128::from(run.0), u128::from(publisher), u128::from(sequence));
    let high = run << 96 | (publisher >> 16) << 80;
    let low = (publisher & 0xffff) << 40 | sequence;
    Uuid::from_u128(high | VERSION_8 | VARIANT | low)
}

impl Database {
    pub(crate) async fn open(url: &DatabaseUrl) -> Result<Self, StoredError> {
        let mut database = match url {
            DatabaseUrl::Postgres(options) => {
                options.connect().await.map(Self::Postgres).map_err(StoredError::Open)?
            }
            DatabaseUrl::Sqlite(path) => {
                let options = SqliteConnectOptions::new().filename(path).read_only(true);
                options.connect().await.map(Self::Sqlite).map_err(StoredError::Open)?
            }
        };
        // Not Sotto's: said before the run.
        database.tenants().await?;
        Ok(database)
    }

    /// Looks up every message of `published`. `user` names the user of a publisher.
    pub(crate) async fn check(
        &mut self,
        run: RunId,
        published: &[Published],
        user: impl Fn(u32) -> Option<String>,
    ) -> Result<StoredReport, StoredError> {
        let mut senders: HashMap<Option<String>, Senders> = HashMap::new();
        let mut report = StoredReport::default();
        for publisher in published {
            report.acknowledged += publisher.accepted.len();
            let user = user(publisher.publisher);
            if !senders.contains_key(&user) {
                let found = self.senders(user.as_deref()).await?;
                senders.insert(user.clone(), found);
            }
            let senders = &senders[&user];
            let mut keys = HashMap::new();
            for sequence in 0..publisher.sent {
                let name = PublicationId(publication_id(run, publisher.publisher, sequence));
                for (tenant, sender) in senders {
                    keys.insert(PublicationKey::new(*tenant, *sender, name).0, sequence);
                }
                if keys.len() >= LOOKUP_KEYS || sequence + 1 == publisher.sent {
                    for key in self.stored(senders, &keys).await? {
                        let is_acknowledged = publisher.accepted.contains(keys[&key]);
                        *(if is_acknowledged { &mut report.stored } else { &mut report.unacknowledged }) += 1;
                    }
                    keys.clear();
                }
            }
        }
        report.missing = report.acknowledged.saturating_sub(report.stored);
        Ok(report)
    }

    /// A login `user@tenant` is one user; every other client is the anonymous one of some tenant.
    async fn senders(&mut self, login: Option<&str>) -> Result<Senders, StoredError> {
        if let Some((user, tenant)) = login.and_then(|login| login.rsplit_once('@')) {
            return self.user(user, tenant).await;
        }
        let tenants = self.tenants().await?;
        Ok(tenants.into_iter().map(|tenant| (tenant, UserId(Uuid::nil()))).collect())
    }

    async fn tenants(&mut self) -> Result<Vec<TenantId>, StoredError> {
        const QUERY: &str = "SELECT tenant_id FROM tenants";
        let tenants: Result<Vec<Uuid>, _> = match self {
            Self::Postgres(connection) => sqlx::query_scalar(QUERY).fetch_all(connection).await,
            Self::Sqlite(connection) => sqlx::query_scalar(QUERY).fetch_all(connection).await,
        };
        let tenants: Vec<_> = tenants.map_err(StoredError::Read)?.into_iter().map(TenantId).collect();
        if tenants.is_empty() { Err(StoredError::NoTenant) } else { Ok(tenants) }
    }

    async fn user(&mut self, user: &str, tenant: &str) -> Result<Senders, StoredError> {
        let found: Result<Vec<(Uuid, Uuid)>, _> = match self {
            Self::Postgres(connection) => {
                const QUERY: &str = "SELECT tenant_id, user_id FROM users JOIN tenants USING (tenant_id) \
                                     WHERE users.name = $1 AND tenants.name = $2";
                sqlx::query_as(QUERY).bind(user).bind(tenant).fetch_all(connection).await
            }
            Self::Sqlite(connection) => {
                const QUERY: &str = "SELECT tenant_id, user_id FROM users JOIN tenants USING (tenant_no) \
                                     WHERE users.name = ?1 AND tenants.name = ?2";
                sqlx::query_as(QUERY).bind(user).bind(tenant).fetch_all(connection).await
            }
        };
        let found = found.map_err(StoredError::Read)?;
        Ok(found.into_iter().map(|(tenant, user)| (TenantId(tenant), UserId(user))).collect())
    }

    /// Of `keys`, those whose message is in the log.
    async fn stored(
        &mut self,
        senders: &Senders,
        keys: &HashMap<Uuid, u32>,
    ) -> Result<Vec<Uuid>, StoredError> {
        let rows: Result<Vec<Uuid>, _> = match self {
            Self::Postgres(connection) => {
                // Offsets are each tenant's own.
                let tenants: Vec<_> = senders.iter().map(|(tenant, _)| tenant.0).collect();
                let mut query = QueryBuilder::<Postgres>::new(
                    "SELECT p.publication_key FROM publications p WHERE EXISTS \
                     (SELECT FROM messages m WHERE m.log_offset = p.log_offset AND m.tenant_id = ANY(",
                );
                query.push_bind(tenants).push(")) AND p.publication_key = ANY(");
                query.push_bind(keys.keys().copied().collect::<Vec<_>>()).push(")");
                let rows = query.build().fetch_all(connection).await;
                rows.and_then(|rows| rows.iter().map(|row| row.try_get(0)).collect())
            }
            Self::Sqlite(connection) => {
                let mut query = QueryBuilder::<Sqlite>::new(
                    "SELECT p.publication_key FROM publications p JOIN messages m USING (log_id) \
                     WHERE p.publication_key IN (",
                );
                let mut places = query.separated(", ");
                for key in keys.keys() {
                    places.push_bind(*key);
                }
                query.push(")");
                let rows = query.build().fetch_all(connection).await;
                rows.and_then(|rows| rows.iter().map(|row| row.try_get(0)).collect())
            }
        };
        rows.map_err(StoredError::Read)
    }
}

impl FromStr for DatabaseUrl {
    type Err = String;

    fn from_str(raw: &str) -> Result<Self, String> {
        if let Some(path) = raw.strip_prefix("sqlite:") {
            return Ok(Self::Sqlite(path.trim_start_matches("//").into()));
        }
        if raw.starts_with("postgres://") || raw.starts_with("postgresql://") {
            // Its error may repeat the password.
            return raw
                .parse()
                .map(|options| Self::Postgres(Box::new(options)))
                .map_err(|_| "not a valid postgres:// URL".to_owned());
        }
        Err("expected postgres://… or sqlite:PATH".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_database_is_told_by_its_scheme() {
        assert!(
            matches!("sqlite:/a/sotto.db".parse(), Ok(DatabaseUrl::Sqlite(path)) if path.ends_with("sotto.db"))
        );
        assert!(matches!("postgres://u:p@localhost/sotto".parse(), Ok(DatabaseUrl::Postgres(_))));
        assert!("mysql://localhost".parse::<DatabaseUrl>().is_err());
    }

    proptest! {
        #[test]
        fn every_message_of_every_run_has_a_name_of_its_own(
            a in (any::<u32>(), 0..1_u32 << 24, any::<u32>()),
            b in (any::<u32>(), 0..1_u32 << 24, any::<u32>()),
        ) {
            let name = |(run, publisher, sequence)| publication_id(RunId(run), publisher, sequence);
            prop_assert_eq!(name(a) == name(b), a == b);
            prop_assert_eq!(name(a).get_version_num(), 8);
        }

        #[test]
        fn neighbours_have_names_of_their_own(publisher in 0..(1_u32 << 24) - 1, sequence in 0..u32::MAX) {
            let name = |publisher, sequence| publication_id(RunId(1), publisher, sequence);
            prop_assert_ne!(name(publisher, sequence), name(publisher + 1, sequence));
            prop_assert_ne!(name(publisher, sequence), name(publisher, sequence + 1));
        }
    }
}
