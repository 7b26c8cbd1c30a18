//! The check as a whole: state, keys, then every sealed row, a page at a time.

use std::collections::HashSet;

use sotto_keyring::{
    KeyRequest, KeyStoreError, KeyUnavailable, Keyring, KmsError, OpenError, Place, SecretError,
    SecretPurpose,
};
use sotto_model::{Clock, MessageId, TenantId, TopicName, UserId};
use uuid::Uuid;

use super::StoreCheck;
use super::finding::{FindingKind, Findings, Subject};
use super::judge::{Judge, Log};
use super::row::LogPlace;
use crate::error::StoreError;

/// Rows of one page: at the longest packets, some tens of megabytes.
const PAGE_ROWS: usize = 128;
/// Keys listed in one page.
const KEY_PAGE_ROWS: usize = 1024;
/// Messages read at each place of a sample.
const SAMPLE_RUN_ROWS: usize = 32;
/// Keys out of reach that are remembered; any more are asked for again.
const LOST_KEYS_MAX: usize = 65_536;

/// How much of the log is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    All,
    /// About as many messages, spread evenly over every log, and as many keys.
    Sample(u64),
}

#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nothing is known about the rows whose keys it would have given out.
    #[error("key service does not answer: the check was not finished")]
    Keys(#[source] KeyUnavailable),
}

/// How far a check has come.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    pub messages: u64,
    pub messages_all: u64,
}

#[derive(Debug)]
pub struct Report {
    pub findings: Findings,
    pub counts: Vec<(&'static str, i64)>,
    pub logs: Vec<(Uuid, Log)>,
    pub opened: Opened,
}

/// Sealed rows that opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    pub epoch_keys: u64,
    pub data_keys: u64,
    pub messages: u64,
    pub retained: u64,
    pub wills: u64,
    pub push_tokens: u64,
}

/// Without a keyring nothing opens: it is for a store that has no keys yet.
pub async fn verify(
    store: &dyn StoreCheck,
    keyring: Option<&Keyring>,
    clock: &dyn Clock,
    extent: Extent,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Report, VerifyError> {
    let mut judge = Judge::default();
    store.check_state(&mut judge, extent == Extent::All).await?;
    let mut check = Check { store, keyring, clock, judge, opened: Opened::default(), lost: HashSet::new() };
    let root_key_fits = check.epoch_keys().await?;
    check.data_keys(extent, root_key_fits).await?;
    if !root_key_fits {
        // One finding says it all: nothing would open.
        check.keyring = None;
    }
    check.messages(extent, root_key_fits, progress).await?;
    check.retained(root_key_fits).await?;
    check.wills(root_key_fits).await?;
    check.push_tokens(root_key_fits).await?;
    Ok(check.report())
}

struct Check<'a> {
    store: &'a dyn StoreCheck,
    keyring: Option<&'a Keyring>,
    clock: &'a dyn Clock,
    judge: Judge,
    opened: Opened,
    lost: HashSet<KeyRequest>,
}

/// How one sealed row answered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    Opened,
    Misplaced,
    WithoutKey,
}

impl Check<'_> {
    /// False: not one of them opens, so the root key is another store's.
    async fn epoch_keys(&mut self) -> Result<bool, VerifyError> {
        let mut after = None;
        let mut closed = Vec::new();
        loop {
            let page = self.store.epoch_keys(after, KEY_PAGE_ROWS).await?;
            for &(tenant, epoch) in &page {
                let Some(keyring) = self.keyring else {
                    closed.push((tenant, epoch));
                    continue;
                };
                match keyring.warm(KeyRequest::epoch(tenant, epoch), self.clock.now()).await {
                    Ok(()) => self.opened.epoch_keys += 1,
                    // Removed since it was listed.
                    Err(KeyUnavailable::Missing) => {}
                    Err(KeyUnavailable::Kms(KmsError::Disabled)) => {
                        let subject = Subject::Epoch(epoch.0);
                        self.judge.found(FindingKind::EpochKeyDisabled, Some(tenant.0), subject);
                    }
                    Err(error) if is_damage(&error) => closed.push((tenant, epoch)),
                    Err(error) => return Err(VerifyError::Keys(error)),
                }
            }
            match page.last() {
                Some(&last) => after = Some(last),
                None => break,
            }
        }
        if self.opened.epoch_keys == 0 && !closed.is_empty() {
            let count = i64::try_from(closed.len()).unwrap_or(i64::MAX);
            self.judge.found(FindingKind::WrongRootKey, None, Subject::Count(count));
            return Ok(false);
        }
        for (tenant, epoch) in closed {
            self.judge.found(FindingKind::EpochKeyDamaged, Some(tenant.0), Subject::Epoch(epoch.0));
        }
        Ok(true)
    }

    async fn data_keys(&mut self, extent: Extent, root_key_fits: bool) -> Result<(), VerifyError> {
        let Some(keyring) = self.keyring.filter(|_| root_key_fits) else { return Ok(()) };
        let mut after = None;
        // Ids are drawn at random, so the first are a sample.
        let mut left = match extent {
            Extent::All => u64::MAX,
            Extent::Sample(count) => count,
        };
        while left > 0 {
            let page = self.store.data_keys(after, KEY_PAGE_ROWS).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.0);
            for &(id, tenant) in page.iter().take(usize::try_from(left).unwrap_or(usize::MAX)) {
                left -= 1;
                match keyring.warm(KeyRequest::by_id(tenant, id), self.clock.now()).await {
                    Ok(()) => self.opened.data_keys += 1,
                    // Of these its epoch key has been told, or that there is none.
                    Err(
                        KeyUnavailable::Missing
                        | KeyUnavailable::Kms(KmsError::Disabled | KmsError::WrongContext),
                    ) => {}
                    Err(error) if is_damage(&error) => {
                        self.judge.found(FindingKind::DataKeyDamaged, Some(tenant.0), Subject::Key(id.0));
                    }
                    Err(error) => return Err(VerifyError::Keys(error)),
                }
            }
        }
        Ok(())
    }

    async fn messages(
        &mut self,
        extent: Extent,
        opens: bool,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<(), VerifyError> {
        let logs: Vec<(Uuid, Log)> = self.judge.logs().collect();
        let all: u64 = logs.iter().map(|(_, log)| log.messages.unsigned_abs()).sum();
        let mut seen = 0;
        for (tenant, log) in logs {
            let Some((first, last)) = log.extent else { continue };
            let last = last.max(log.head);
            let runs = Runs::over(extent, first, last, log.messages.unsigned_abs(), all);
            let mut after = LogPlace { tenant, offset: first.saturating_sub(1), message_id: Uuid::max() };
            for run in 0..runs.count {
                let start = runs.start(run);
                if start > after.offset {
                    after = LogPlace { tenant, offset: start, message_id: Uuid::max() };
                }
                loop {
                    let rows = self.store.messages(after, runs.rows).await?;
                    for row in &rows {
                        self.judge.message(row);
                        let LogPlace { offset, message_id, .. } = row.place;
                        if let Some((_, topic)) = row.topic.as_ref().filter(|_| opens) {
                            let subject = Subject::Message { offset, message_id };
                            let answer =
                                self.open(tenant, topic, row.sender, message_id, &row.sealed).await?;
                            self.opened.messages += u64::from(answer == Answer::Opened);
                            self.note(answer, SEALED_MESSAGE, Some(tenant), subject);
                        }
                    }
                    seen += rows.len() as u64;
                    progress(Progress { messages: seen, messages_all: all });
                    let Some(row) = rows.last() else { break };
                    after = row.place;
                    // What is committed meanwhile is left to the next check.
                    if !runs.goes_on || after.offset >= last {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    async fn retained(&mut self, opens: bool) -> Result<(), VerifyError> {
        let mut after = None;
        loop {
            let rows = self.store.retained_copies(after, PAGE_ROWS).await?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = Some(last.topic_id);
            for row in &rows {
                self.judge.retained(row);
                if !opens {
                    continue;
                }
                let subject = Subject::Message { offset: row.offset, message_id: row.message_id };
                let answer =
                    self.open(row.tenant, &row.name, row.sender, row.message_id, &row.sealed).await?;
                self.opened.retained += u64::from(answer == Answer::Opened);
                self.note(answer, SEALED_RETAINED, Some(row.tenant), subject);
            }
        }
    }

    async fn wills(&mut self, opens: bool) -> Result<(), VerifyError> {
        let mut after = None;
        loop {
            let rows = self.store.kept_wills(after, PAGE_ROWS).await?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = Some(last.message_id);
            for row in &rows {
                self.judge.will(row);
                let Some(tenant) = row.tenant.filter(|_| opens) else { continue };
                let answer = self.open(tenant, &row.topic, row.sender, row.message_id, &row.sealed).await?;
                self.opened.wills += u64::from(answer == Answer::Opened);
                self.note(answer, SEALED_WILL, Some(tenant), Subject::Will(row.message_id));
            }
        }
    }

    async fn push_tokens(&mut self, opens: bool) -> Result<(), VerifyError> {
        let Some(keyring) = self.keyring.filter(|_| opens) else { return Ok(()) };
        let mut after = None;
        loop {
            let rows = self.store.push_tokens(after, PAGE_ROWS).await?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = Some(last.device);
            for row in &rows {
                let opening = keyring.open_secret(
                    TenantId(row.tenant),
                    SecretPurpose::PushToken,
                    row.device,
                    &row.sealed,
                    self.clock.now(),
                );
                let answer = match opening.await {
                    Ok(_) => Answer::Opened,
                    Err(SecretError::Key(error)) => is_out_of_reach(error)?,
                    Err(_) => Answer::Misplaced,
                };
                self.opened.push_tokens += u64::from(answer == Answer::Opened);
                self.note(answer, SEALED_PUSH_TOKEN, Some(row.tenant), Subject::Device(row.device));
            }
        }
    }

    async fn open(
        &mut self,
        tenant: Uuid,
        topic: &str,
        sender: Uuid,
        message_id: Uuid,
        sealed: &[u8],
    ) -> Result<Answer, VerifyError> {
        let Some(keyring) = self.keyring else { return Ok(Answer::WithoutKey) };
        // It was published under a name that is one.
        let Ok(topic) = TopicName::parse(topic) else { return Ok(Answer::Misplaced) };
        let place = Place {
            tenant: TenantId(tenant),
            topic: &topic,
            sender: UserId(sender),
            message_id: MessageId(message_id),
        };
        loop {
            let request = match keyring.open(&place, sealed, self.clock.now()) {
                Ok(_) => return Ok(Answer::Opened),
                Err(OpenError::Format | OpenError::Misplaced) => return Ok(Answer::Misplaced),
                Err(OpenError::KeyCold(request)) => request,
            };
            if self.lost.contains(&request) {
                return Ok(Answer::WithoutKey);
            }
            let Err(error) = keyring.warm(request, self.clock.now()).await else { continue };
            if matches!(error, KeyUnavailable::Missing) && self.is_of_another_tenant(&request).await? {
                return Ok(Answer::Misplaced);
            }
            let answer = is_out_of_reach(error)?;
            if self.lost.len() < LOST_KEYS_MAX {
                self.lost.insert(request);
            }
            return Ok(answer);
        }
    }

    /// The key is there, so that the row was moved.
    async fn is_of_another_tenant(&self, request: &KeyRequest) -> Result<bool, VerifyError> {
        let Some(id) = request.key_id() else { return Ok(false) };
        let key = self.store.data_key(id).await;
        match key {
            Ok(row) => Ok(row.is_some_and(|row| row.tenant != request.tenant())),
            Err(KeyStoreError::Inconsistent(_)) => Ok(false),
            Err(error) => Err(VerifyError::Keys(error.into())),
        }
    }

    fn note(&mut self, answer: Answer, kinds: Kinds, tenant: Option<Uuid>, subject: Subject) {
        match answer {
            Answer::Opened => {}
            Answer::Misplaced => self.judge.found(kinds.misplaced, tenant, subject),
            Answer::WithoutKey => self.judge.found(kinds.without_key, tenant, subject),
        }
    }

    fn report(self) -> Report {
        let counts = self.judge.counts().collect();
        let logs = self.judge.logs().collect();
        Report { findings: self.judge.into_findings(), counts, logs, opened: self.opened }
    }
}

/// What a row that does not open is called.
#[derive(Clone, Copy)]
struct Kinds {
    misplaced: FindingKind,
    without_key: FindingKind,
}

const SEALED_MESSAGE: Kinds =
    Kinds { misplaced: FindingKind::MessageMisplaced, without_key: FindingKind::MessageWithoutKey };
const SEALED_RETAINED: Kinds =
    Kinds { misplaced: FindingKind::RetainedMisplaced, without_key: FindingKind::RetainedWithoutKey };
const SEALED_WILL: Kinds =
    Kinds { misplaced: FindingKind::WillMisplaced, without_key: FindingKind::WillWithoutKey };
const SEALED_PUSH_TOKEN: Kinds =
    Kinds { misplaced: FindingKind::PushTokenMisplaced, without_key: FindingKind::PushTokenWithoutKey };

/// The row of the key is at fault, not the service that was asked.
fn is_damage(error: &KeyUnavailable) -> bool {
    match error {
        KeyUnavailable::Kms(KmsError::WrongContext) | KeyUnavailable::Inconsistent => true,
        KeyUnavailable::Store(error) => matches!(**error, KeyStoreError::Inconsistent(_)),
        _ => false,
    }
}

/// A key that cannot be had for good; an error where it may be had another time.
fn is_out_of_reach(error: KeyUnavailable) -> Result<Answer, VerifyError> {
    match error {
        KeyUnavailable::Missing | KeyUnavailable::Kms(KmsError::Disabled) => Ok(Answer::WithoutKey),
        error if is_damage(&error) => Ok(Answer::WithoutKey),
        error => Err(VerifyError::Keys(error)),
    }
}

/// Where in a log is read, and how much there.
struct Runs {
    first: i64,
    step: i64,
    count: i64,
    rows: usize,
    goes_on: bool,
}

impl Runs {
    fn over(extent: Extent, first: i64, last: i64, messages: u64, all: u64) -> Self {
        let Extent::Sample(wanted) = extent else {
            return Self { first, step: 0, count: 1, rows: PAGE_ROWS, goes_on: true };
        };
        let share = u128::from(wanted) * u128::from(messages) / u128::from(all.max(1));
        let share = i64::try_from(share).unwrap_or(i64::MAX);
        let rows = i64::try_from(SAMPLE_RUN_ROWS).expect("a small number");
        let count = (share / rows).max(1);
        Self { first, step: last.saturating_sub(first) / count, count, rows: SAMPLE_RUN_ROWS, goes_on: false }
    }

    /// A run reads what is after this offset.
    fn start(&self, run: i64) -> i64 {
        self.first.saturating_sub(1).saturating_add(self.step.saturating_mul(run))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_spread_over_the_log() {
        let runs = Runs::over(Extent::Sample(320), 1, 10_001, 10_000, 10_000);
        assert_eq!((runs.count, runs.step), (10, 1000));
        assert_eq!((runs.start(0), runs.start(9)), (0, 9000));
        let small = Runs::over(Extent::Sample(1), 5, 5, 1, 1_000_000);
        assert_eq!((small.count, small.start(0)), (1, 4));
    }
}
