//! Who a client is: users and their passwords, in memory.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use parking_lot::{Mutex, RwLock};
use sotto_model::{TenantId, UserId};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::journal::{Journal, Load, LoadError};
use crate::limits::PASSWORD_BYTES_MAX;
use crate::name::{DeviceName, TenantName, UserName};
use crate::password::PasswordHash;
use crate::scram::{ClientFirst, ScramCredentials, ScramError, ScramExchange, ServerNonce};
use crate::verified::{PasswordMac, VerifiedCache};

/// Checks the user name, password and Client Identifier of a CONNECT.
///
/// A user signs in as `user@tenant`, with a Client Identifier of `user/device`. Within a tenant a user
/// name is unique and holds no '/', so no two users can come to the same Client Identifier.
pub struct Authenticator {
    shared: Arc<Shared>,
}

/// One user, as loaded.
#[derive(Clone)]
pub struct UserCredentials {
    pub tenant: TenantId,
    pub tenant_name: TenantName,
    pub user: UserId,
    pub user_name: UserName,
    pub password: PasswordHash,
    /// `None` where the password was set before there were any.
    pub scram: Option<Arc<ScramCredentials>>,
    pub disabled: bool,
}

/// Who a client has shown itself to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub tenant: TenantId,
    pub user: UserId,
    /// `None` for anonymous clients.
    pub user_name: Option<UserName>,
    /// `None` for anonymous clients.
    pub device_name: Option<DeviceName>,
}

pub enum Check {
    Accepted(Identity),
    /// The password must be hashed first.
    Verify(PasswordCheck),
    Refused(Refusal),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Unknown, disabled or wrong: which of them is not told.
    #[error("bad user name or password")]
    BadCredentials,
    #[error("client identifier is not one of the user's")]
    ClientId,
    /// No user name, where anonymous clients are not let in.
    #[error("not authorized")]
    NotAuthorized,
    /// The user has no credentials for the method.
    #[error("bad authentication method")]
    Method,
}

/// The slow part of a check: one argon2id hash.
pub struct PasswordCheck {
    shared: Arc<Shared>,
    /// The hash of nobody where there is no such user, so that the answer takes as long.
    stored: PasswordHash,
    password: Zeroizing<Vec<u8>>,
    mac: PasswordMac,
    login: Login,
    device_name: DeviceName,
    now: Instant,
}

/// A user who signs in by SCRAM-SHA-256, between its two messages.
pub struct ScramLogin {
    shared: Arc<Shared>,
    /// `None` for a name that cannot be a user's.
    login: Option<Login>,
    exchange: ScramExchange,
}

type Login = (TenantName, UserName);

struct Shared {
    /// Written under `journal`'s lock only; read locks last for a lookup.
    users: RwLock<Users>,
    /// Held by whoever changes the users, for the length of the change.
    journal: Mutex<Journal<Change>>,
    verified: VerifiedCache,
    nobody: PasswordHash,
    /// Gives salts to names that nobody has.
    nobody_key: hmac::Key,
}

#[derive(Default)]
struct Users {
    by_login: HashMap<Login, Arc<UserCredentials>>,
    logins: HashMap<(TenantId, UserId), Login>,
}

#[derive(Clone)]
enum Change {
    Upsert(UserCredentials),
    Remove(TenantId, UserId),
}

impl Authenticator {
    /// A password that was verified at most `verified_age_max` ago is not hashed again. `nobody_key` is
    /// secret, and should outlive the process: names that nobody has are told salts that depend on it.
    pub fn new(verified_age_max: Duration, nobody_key: &[u8]) -> Self {
        Self {
            shared: Arc::new(Shared {
                users: RwLock::default(),
                journal: Mutex::new(Journal::new()),
                verified: VerifiedCache::new(verified_age_max),
                nobody: PasswordHash::of_nobody(),
                nobody_key: hmac::Key::new(hmac::HMAC_SHA256, nobody_key),
            }),
        }
    }

    /// Call it before the first user of a snapshot is read.
    pub fn begin_load(&self) -> Load {
        self.shared.journal.lock().begin()
    }

    /// Makes these users, and what has changed since the load began, all there are. On an error nothing
    /// has changed: load again.
    pub fn replace(&self, load: Load, users: Vec<UserCredentials>) -> Result<(), LoadError> {
        let mut loaded = Users::default();
        for user in users {
            loaded.apply(Change::Upsert(user));
        }
        let mut journal = self.shared.journal.lock();
        for change in journal.finish(load)? {
            loaded.apply(change);
        }
        let replaced = std::mem::replace(&mut *self.shared.users.write(), loaded);
        drop(journal);
        drop(replaced);
        Ok(())
    }

    pub fn upsert(&self, user: UserCredentials) {
        self.change(Change::Upsert(user));
    }

    pub fn remove(&self, tenant: TenantId, user: UserId) {
        self.change(Change::Remove(tenant, user));
    }

    /// Answers at once, but for a password that was not verified of late. A client whose
    /// user name names no tenant, or that sends none, is let in as the anonymous user of `anonymous_tenant`,
    /// under any Client Identifier and password.
    pub fn check(
        &self,
        username: Option<&str>,
        password: Option<&[u8]>,
        client_id: &str,
        anonymous_tenant: Option<TenantId>,
        now: Instant,
    ) -> Check {
        // The next refusals depend on what was sent alone, never on which users exist.
        let Some(login) = username.and_then(parse_login) else {
            return match anonymous_tenant {
                Some(tenant) => Check::Accepted(Identity::anonymous(tenant)),
                None if username.is_none() => Check::Refused(Refusal::NotAuthorized),
                None => Check::Refused(Refusal::BadCredentials),
            };
        };
        let Some(password) = password.filter(|password| password.len() <= PASSWORD_BYTES_MAX) else {
            return Check::Refused(Refusal::BadCredentials);
        };
        let Some(device_name) = parse_client_id(client_id, &login.1) else {
            return Check::Refused(Refusal::ClientId);
        };
        let user = self.shared.enabled_user(&login);
        let stored = user.as_ref().map_or(&self.shared.nobody, |user| &user.password);
        let mac = self.shared.verified.mac(stored, password);
        let remembered = self.shared.verified.holds(&mac, now);
        match user {
            Some(user) if remembered => Check::Accepted(Identity::of(&user, device_name)),
            _ => Check::Verify(PasswordCheck {
                shared: Arc::clone(&self.shared),
                stored: stored.clone(),
                password: Zeroizing::new(password.to_vec()),
                mac,
                login,
                device_name,
                now,
            }),
        }
    }

    /// Takes the client-first message of SCRAM-SHA-256; also returns the server-first one.
    pub fn begin_scram(
        &self,
        client_first: &[u8],
        nonce: &ServerNonce,
    ) -> Result<(ScramLogin, Vec<u8>), Refusal> {
        let client = ClientFirst::parse(client_first)?;
        let login = parse_login(&client.username);
        let nobody = ScramCredentials::of_nobody(&self.shared.nobody_key, &client.username);
        let credentials = match login.as_ref().and_then(|login| self.shared.enabled_user(login)) {
            Some(user) => user.scram.clone().ok_or(Refusal::Method)?,
            None => Arc::new(nobody),
        };
        let (exchange, server_first) = ScramExchange::begin(client, credentials, nonce);
        Ok((ScramLogin { shared: Arc::clone(&self.shared), login, exchange }, server_first))
    }

    fn change(&self, change: Change) {
        let mut journal = self.shared.journal.lock();
        journal.record(change.clone());
        self.shared.users.write().apply(change);
    }
}

impl PasswordCheck {
    /// Takes some tens of milliseconds and 19 MiB: for a bounded pool of threads.
    pub fn run(self) -> Result<Identity, Refusal> {
        let matches = self.stored.matches(&self.password);
        // Looked up again: the user may have been removed, disabled or given another password meanwhile.
        let user = self.shared.enabled_user(&self.login).filter(|user| user.password == self.stored);
        match user {
            Some(user) if matches => {
                self.shared.verified.insert(self.mac, self.now);
                Ok(Identity::of(&user, self.device_name))
            }
            _ => Err(Refusal::BadCredentials),
        }
    }
}

impl ScramLogin {
    /// Who it says it is; `None` for a name that cannot be a user's.
    pub fn user_name(&self) -> Option<&UserName> {
        self.login.as_ref().map(|(_, user)| user)
    }

    /// Takes the client-final message; also returns the server-final one.
    pub fn finish(self, client_final: &[u8], client_id: &str) -> Result<(Identity, Vec<u8>), Refusal> {
        let (proven, server_final) = self.exchange.finish(client_final)?;
        let login = self.login.ok_or(Refusal::BadCredentials)?;
        // Looked up again: the user may have been removed, disabled or given another password meanwhile.
        let user = self
            .shared
            .enabled_user(&login)
            .filter(|user| user.scram.as_ref() == Some(&proven))
            .ok_or(Refusal::BadCredentials)?;
        let device_name = parse_client_id(client_id, &login.1).ok_or(Refusal::ClientId)?;
        Ok((Identity::of(&user, device_name), server_final))
    }
}

impl From<ScramError> for Refusal {
    fn from(error: ScramError) -> Self {
        match error {
            ScramError::Proof => Self::BadCredentials,
            ScramError::Malformed
            | ScramError::ChannelBinding
            | ScramError::Nonce
            | ScramError::Credentials => Self::NotAuthorized,
        }
    }
}

impl Identity {
    fn of(user: &UserCredentials, device_name: DeviceName) -> Self {
        Self {
            tenant: user.tenant,
            user: user.user,
            user_name: Some(user.user_name.clone()),
            device_name: Some(device_name),
        }
    }

    fn anonymous(tenant: TenantId) -> Self {
        Self { tenant, user: UserId(Uuid::nil()), user_name: None, device_name: None }
    }
}

impl Shared {
    fn enabled_user(&self, login: &Login) -> Option<Arc<UserCredentials>> {
        self.users.read().by_login.get(login).filter(|user| !user.disabled).cloned()
    }
}

impl Users {
    fn apply(&mut self, change: Change) {
        match change {
            Change::Upsert(user) => {
                let key = (user.tenant, user.user);
                self.remove(key);
                let login = (user.tenant_name.clone(), user.user_name.clone());
                self.logins.insert(key, login.clone());
                self.by_login.insert(login, Arc::new(user));
            }
            Change::Remove(tenant, user) => self.remove((tenant, user)),
        }
    }

    fn remove(&mut self, key: (TenantId, UserId)) {
        if let Some(login) = self.logins.remove(&key) {
            // The name may have passed to another user.
            if self.by_login.get(&login).is_some_and(|user| (user.tenant, user.user) == key) {
                self.by_login.remove(&login);
            }
        }
    }
}

fn parse_login(username: &str) -> Option<Login> {
    let (user, tenant) = username.split_once('@')?;
    Some((TenantName::parse(tenant).ok()?, UserName::parse(user).ok()?))
}

fn parse_client_id(client_id: &str, user: &UserName) -> Option<DeviceName> {
    let device = client_id.strip_prefix(user.as_str())?.strip_prefix('/')?;
    DeviceName::parse(device).ok()
}

#[cfg(test)]
mod tests;
