//! Session tickets that this server alone can open, and keeps nothing of: sealed under a key of their time,
//! which is derived from a root that outlives the process and may be shared by several nodes.
//!
//! ```text
//! 4   period: hours since the epoch, by sixes, big-endian
//! 12  nonce, drawn
//! n   AES-256-GCM of the session, bound to the period and to what client certificates are checked by
//! 16  tag
//! ```

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use parking_lot::RwLock;
use rustls::server::ProducesTickets;
use sotto_model::Clock;
use zeroize::Zeroizing;

use crate::data_dir::write_private;

const ROOT_BYTES: usize = 32;
const KEY_BYTES: usize = 32;
/// A ticket is good for the period that it is made in and the next.
const PERIOD_SECONDS: u32 = 6 * 3600;
const PERIOD_BYTES: usize = 4;
const MILLIS_PER_SECOND: u64 = 1000;

#[derive(Debug, thiserror::Error)]
pub(crate) enum TicketRootError {
    #[error("read the ticket key file {path}: {reason}")]
    Read { path: String, reason: io::ErrorKind },
    #[error("the ticket key file {0} does not hold {ROOT_BYTES} bytes")]
    Length(String),
    #[error("write the ticket key file {path}: {reason}")]
    Write { path: String, reason: io::ErrorKind },
    #[error("no randomness for a ticket key")]
    Draw,
}

/// What all keys are derived from.
pub(crate) struct TicketRoot(Zeroizing<[u8; ROOT_BYTES]>);

/// What tickets are bound to beside their period: changed, they mean nothing any more.
pub(crate) type Binding = [u8; 32];

pub(crate) struct Tickets {
    root: Arc<TicketRoot>,
    clock: Arc<dyn Clock>,
    binding: Binding,
    /// Written once a period by whoever comes first; read for each handshake.
    keys: RwLock<Option<Keys>>,
}

struct Keys {
    period: u32,
    current: RandomizedNonceKey,
    previous: RandomizedNonceKey,
}

impl TicketRoot {
    pub(crate) fn open(path: &Path) -> Result<Self, TicketRootError> {
        let shown = path.display().to_string();
        let failed = |error: io::Error| TicketRootError::Read { path: shown.clone(), reason: error.kind() };
        let mut file = File::open(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.len() != ROOT_BYTES as u64 {
            return Err(TicketRootError::Length(shown));
        }
        let mut root = Zeroizing::new([0; ROOT_BYTES]);
        file.read_exact(root.as_mut()).map_err(failed)?;
        Ok(Self(root))
    }

    pub(crate) fn open_or_make(path: &Path) -> Result<Self, TicketRootError> {
        if !path.exists() {
            let mut root = Zeroizing::new([0; ROOT_BYTES]);
            aws_lc_rs::rand::fill(root.as_mut()).map_err(|_| TicketRootError::Draw)?;
            write_private(path, root.as_ref()).map_err(|error| TicketRootError::Write {
                path: path.display().to_string(),
                reason: error.kind(),
            })?;
        }
        Self::open(path)
    }

    fn key(&self, period: u32) -> RandomizedNonceKey {
        let derived = Salt::new(HKDF_SHA256, b"sotto tls tickets").extract(self.0.as_ref());
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        derived
            .expand(&[b"period", &period.to_be_bytes()], KeyLength)
            .and_then(|bytes| bytes.fill(key.as_mut()))
            .expect("32 bytes are fewer than HKDF gives");
        RandomizedNonceKey::new(&AES_256_GCM, key.as_ref()).expect("a key of the right length")
    }
}

struct KeyLength;

impl KeyType for KeyLength {
    fn len(&self) -> usize {
        KEY_BYTES
    }
}

impl Tickets {
    pub(crate) fn new(root: Arc<TicketRoot>, clock: Arc<dyn Clock>, binding: Binding) -> Self {
        Self { root, clock, binding, keys: RwLock::new(None) }
    }

    fn period(&self) -> u32 {
        let seconds = self.clock.unix_now().0 / MILLIS_PER_SECOND;
        u32::try_from(seconds / u64::from(PERIOD_SECONDS)).unwrap_or(u32::MAX)
    }

    fn with_keys<T>(&self, use_keys: impl Fn(&Keys) -> Option<T>) -> Option<T> {
        let period = self.period();
        if let Some(keys) = self.keys.read().as_ref().filter(|keys| keys.period == period) {
            return use_keys(keys);
        }
        let keys = Keys {
            period,
            current: self.root.key(period),
            previous: self.root.key(period.saturating_sub(1)),
        };
        let used = use_keys(&keys);
        *self.keys.write() = Some(keys);
        used
    }

    fn aad(&self, period: [u8; PERIOD_BYTES]) -> Aad<[u8; 36]> {
        let mut bound = [0; 36];
        bound[..PERIOD_BYTES].copy_from_slice(&period);
        bound[PERIOD_BYTES..].copy_from_slice(&self.binding);
        Aad::from(bound)
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    /// The least that a ticket is good for.
    fn lifetime(&self) -> u32 {
        PERIOD_SECONDS
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        if !is_tls13(plain) {
            return None;
        }
        self.with_keys(|keys| {
            let period = keys.period.to_be_bytes();
            let mut sealed = plain.to_vec();
            let nonce = keys.current.seal_in_place_append_tag(self.aad(period), &mut sealed).ok()?;
            Some([&period[..], nonce.as_ref(), &sealed].concat())
        })
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let (period, rest) = cipher.split_first_chunk::<PERIOD_BYTES>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        self.with_keys(|keys| {
            let made_in = u32::from_be_bytes(*period);
            let key = match keys.period.checked_sub(made_in) {
                Some(0) => &keys.current,
                Some(1) => &keys.previous,
                _ => return None,
            };
            let mut opened = sealed.to_vec();
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let len = key.open_in_place(nonce, self.aad(*period), &mut opened).ok()?.len();
            opened.truncate(len);
            Some(opened)
        })
    }
}

/// A ticket of TLS 1.2 holds what opens the connection that it was given on, and the root outlives them all: only
/// TLS 1.3, which agrees on a new secret each time, is given any. The session begins with the server's name,
/// where there is one, and the version; of anything else no ticket is made.
fn is_tls13(session: &[u8]) -> bool {
    const TLS13: [u8; 2] = [3, 4];
    let version = match session {
        [0, rest @ ..] => Some(rest),
        [1, name_len, rest @ ..] => rest.get(usize::from(*name_len)..),
        _ => None,
    };
    version.is_some_and(|version| version.starts_with(&TLS13))
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use parking_lot::Mutex;
    use sotto_model::UnixMillis;

    use super::*;

    const SESSION: &[u8] = &[0, 3, 4, 0x13, 1, 42, 43, 44];

    /// Stands where it was put.
    struct Stopped(Mutex<u64>);

    impl Clock for Stopped {
        fn now(&self) -> Instant {
            unreachable!("tickets go by the calendar")
        }

        fn unix_now(&self) -> UnixMillis {
            UnixMillis(*self.0.lock() * MILLIS_PER_SECOND)
        }

        fn draw(&self) -> u64 {
            0
        }
    }

    impl Stopped {
        fn at(period: u32) -> Arc<Self> {
            let clock = Self(Mutex::new(0));
            clock.set(period);
            Arc::new(clock)
        }

        fn set(&self, period: u32) {
            *self.0.lock() = u64::from(period) * u64::from(PERIOD_SECONDS) + 1;
        }
    }

    fn root(byte: u8) -> Arc<TicketRoot> {
        Arc::new(TicketRoot(Zeroizing::new([byte; ROOT_BYTES])))
    }

    #[test]
    fn a_ticket_is_good_for_its_period_and_the_next() {
        let clock = Stopped::at(100);
        let tickets = Tickets::new(root(1), clock.clone(), [0; 32]);
        let ticket = tickets.encrypt(SESSION).expect("a ticket");
        assert_ne!(ticket, tickets.encrypt(SESSION).expect("another"), "by its nonce");
        for (period, is_good) in [(100, true), (101, true), (102, false), (99, false), (100, true)] {
            clock.set(period);
            assert_eq!(tickets.decrypt(&ticket).is_some_and(|plain| plain == SESSION), is_good, "{period}");
        }
    }

    #[test]
    fn another_process_with_the_same_root_opens_it_and_no_other_does() {
        let ticket = Tickets::new(root(1), Stopped::at(5), [0; 32]).encrypt(SESSION).expect("a ticket");
        let opens =
            |byte, binding| Tickets::new(root(byte), Stopped::at(5), binding).decrypt(&ticket).is_some();
        assert!(opens(1, [0; 32]));
        assert!(!opens(2, [0; 32]));
        assert!(!opens(1, [1; 32]), "client certificates are checked by something else");
    }

    #[test]
    fn a_mangled_ticket_is_none() {
        let tickets = Tickets::new(root(1), Stopped::at(5), [0; 32]);
        let ticket = tickets.encrypt(SESSION).expect("a ticket");
        for at in 0..ticket.len() {
            let mut mangled = ticket.clone();
            mangled[at] ^= 1;
            assert_eq!(tickets.decrypt(&mangled), None, "byte {at}");
            assert_eq!(tickets.decrypt(&ticket[..at]), None, "{at} bytes");
        }
    }

    #[test]
    fn only_tls_1_3_is_given_tickets() {
        let tickets = Tickets::new(root(1), Stopped::at(5), [0; 32]);
        let named = [&[1, 4][..], b"host", &[3, 4, 0x13, 1]].concat();
        assert!(tickets.encrypt(&named).is_some());
        for session in
            [&[0, 3, 3, 0xc0][..], &[1, 4, b'h', b'o', b's', b't', 3, 3], &[1, 200, 3, 4], &[], &[2, 3, 4]]
        {
            assert_eq!(tickets.encrypt(session), None, "{session:?}");
        }
    }

    #[test]
    fn the_root_is_made_once_for_its_owner_alone_and_has_32_bytes() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("ticket.key");
        assert!(matches!(TicketRoot::open(&path), Err(TicketRootError::Read { .. })));
        let made = TicketRoot::open_or_make(&path).expect("made");
        assert_eq!(*TicketRoot::open_or_make(&path).expect("there").0, *made.0);
        assert_eq!(path.metadata().expect("there").permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, [0; 31]).expect("write");
        assert!(matches!(TicketRoot::open_or_make(&path), Err(TicketRootError::Length(_))));
    }
}
