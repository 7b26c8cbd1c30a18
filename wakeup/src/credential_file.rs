//! A file with a credential, and what is made of it: read at the start, and anew when it has changed.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;
use sotto_model::Clock;
use zeroize::Zeroizing;

use crate::limits::{CREDENTIAL_BYTES_MAX, CREDENTIAL_LOOK_INTERVAL};
use crate::pusher::CredentialState;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("credential file {path}: {fault}")]
pub struct CredentialFileError {
    path: String,
    fault: CredentialFault,
}

/// What is wrong with the file, without its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum CredentialFault {
    #[error("{0}")]
    File(std::io::ErrorKind),
    #[error("longer than {CREDENTIAL_BYTES_MAX} bytes")]
    TooLong,
    #[error("{0}")]
    Invalid(&'static str),
}

/// Makes a credential of a file's content, or says in our words what is wrong with it.
type Parse<T> = dyn Fn(&[u8]) -> Result<T, &'static str> + Send + Sync;

pub(crate) struct CredentialFile<T> {
    path: PathBuf,
    parse: Box<Parse<T>>,
    clock: Arc<dyn Clock>,
    /// Locked by whoever needs the credential, a look at the file included.
    state: Mutex<State<T>>,
}

struct State<T> {
    value: Arc<T>,
    credential: CredentialState,
    /// Of the content that was read last, whether it could be used or not.
    read: Option<Stamp>,
    /// At the last look. A file is read once it was the same at two looks: it may be half written.
    seen: Option<Stamp>,
    looked_at: Instant,
}

/// Changes when the file does: by rename, by a link that leads elsewhere, or in place.
#[derive(Clone, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: Option<SystemTime>,
}

impl<T> CredentialFile<T> {
    pub(crate) fn open(
        path: PathBuf,
        clock: Arc<dyn Clock>,
        parse: impl Fn(&[u8]) -> Result<T, &'static str> + Send + Sync + 'static,
    ) -> Result<Self, CredentialFileError> {
        // Before reading: what changes between the two is then seen as a change.
        let stamp = Stamp::of(&path);
        let value = read(&path).and_then(|bytes| parse(&bytes).map_err(CredentialFault::Invalid));
        let value = value.map_err(|fault| CredentialFileError { path: shown(&path), fault })?;
        let state = State {
            value: Arc::new(value),
            credential: CredentialState { generation: 1, since: Some(clock.unix_now()) },
            read: stamp.clone(),
            seen: stamp,
            looked_at: clock.now(),
        };
        Ok(Self { path, parse: Box::new(parse), state: Mutex::new(state), clock })
    }

    pub(crate) fn current(&self) -> Arc<T> {
        let mut state = self.state.lock();
        self.look(&mut state);
        state.value.clone()
    }

    pub(crate) fn state(&self) -> CredentialState {
        let mut state = self.state.lock();
        self.look(&mut state);
        state.credential
    }

    /// Looks at the file at most every `CREDENTIAL_LOOK_INTERVAL`. It is small and local: this takes some
    /// microseconds of whoever asks.
    fn look(&self, state: &mut State<T>) {
        let now = self.clock.now();
        if now.saturating_duration_since(state.looked_at) < CREDENTIAL_LOOK_INTERVAL {
            return;
        }
        state.looked_at = now;
        let stamp = Stamp::of(&self.path);
        let is_settled = stamp == state.seen;
        state.seen.clone_from(&stamp);
        if !is_settled || stamp == state.read {
            return;
        }
        state.read = stamp;
        match read(&self.path).and_then(|bytes| (self.parse)(&bytes).map_err(CredentialFault::Invalid)) {
            Ok(value) => {
                state.value = Arc::new(value);
                state.credential = CredentialState {
                    generation: state.credential.generation + 1,
                    since: Some(self.clock.unix_now()),
                };
                tracing::info!(event = "push_credential_reloaded", "a changed credential file is in use");
            }
            Err(fault) => {
                let error = CredentialFileError { path: shown(&self.path), fault };
                tracing::error!(event = "push_credential_reload_failed", %error, "the credential in use stays");
            }
        }
    }
}

impl Stamp {
    /// Of the file that a link leads to; `None` where there is none.
    fn of(path: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;

        let metadata = path.metadata().ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: metadata.modified().ok(),
        })
    }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, CredentialFault> {
    let file = File::open(path).map_err(|error| CredentialFault::File(error.kind()))?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(CREDENTIAL_BYTES_MAX + 1));
    file.take(CREDENTIAL_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| CredentialFault::File(error.kind()))?;
    if bytes.len() > CREDENTIAL_BYTES_MAX { Err(CredentialFault::TooLong) } else { Ok(bytes) }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::testing::ManualClock;

    struct Fixture {
        path: PathBuf,
        clock: Arc<ManualClock>,
        file: CredentialFile<String>,
        _folder: tempfile::TempDir,
    }

    fn parse(bytes: &[u8]) -> Result<String, &'static str> {
        match std::str::from_utf8(bytes) {
            Ok(text) if text.starts_with("key") => Ok(text.to_owned()),
            _ => Err("is no key"),
        }
    }

    fn fixture() -> Fixture {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("credential");
        fs::write(&path, "key one").expect("written");
        let clock = ManualClock::new();
        let file = CredentialFile::open(path.clone(), clock.clone(), parse).expect("a credential");
        Fixture { path, clock, file, _folder: folder }
    }

    impl Fixture {
        fn looks(&self, looks: u32) {
            for _ in 0..looks {
                self.clock.advance(CREDENTIAL_LOOK_INTERVAL);
                self.file.current();
            }
        }
    }

    #[test]
    fn a_changed_file_is_read_once_it_was_the_same_at_two_looks() {
        let fixture = fixture();
        assert_eq!(*fixture.file.current(), "key one");
        let before = fixture.file.state();
        fs::write(&fixture.path, "key number two").expect("written");
        assert_eq!(*fixture.file.current(), "key one");
        fixture.looks(1);
        fs::write(&fixture.path, "key number three").expect("written");
        fixture.looks(1);
        assert_eq!(*fixture.file.current(), "key one");
        fixture.looks(1);
        assert_eq!(*fixture.file.current(), "key number three");
        let after = fixture.file.state();
        assert_eq!(after.generation, before.generation + 1);
        assert_eq!(after.since, Some(fixture.clock.unix_now()));
        fixture.looks(5);
        assert_eq!(fixture.file.state(), after);
    }

    #[test]
    fn a_bad_file_leaves_the_credential_in_use() {
        let fixture = fixture();
        let before = fixture.file.state();
        fs::write(&fixture.path, "rubbish").expect("written");
        fixture.looks(3);
        assert_eq!(*fixture.file.current(), "key one");
        fs::remove_file(&fixture.path).expect("removed");
        fixture.looks(3);
        assert_eq!((fixture.file.state(), fixture.file.current().as_str()), (before, "key one"));
        fs::write(&fixture.path, "key four").expect("written");
        fixture.looks(2);
        assert_eq!(*fixture.file.current(), "key four");
    }

    #[test]
    fn an_error_names_the_file_and_not_what_is_in_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("credential");
        let clock = ManualClock::new();
        let error = || CredentialFile::open(path.clone(), clock.clone(), parse).err().expect("refused");
        assert_eq!(error().to_string(), format!("credential file {}: entity not found", path.display()));
        fs::write(&path, "secret").expect("written");
        assert_eq!(error().to_string(), format!("credential file {}: is no key", path.display()));
        fs::write(&path, vec![b'k'; CREDENTIAL_BYTES_MAX + 1]).expect("written");
        assert!(error().to_string().ends_with("longer than 65536 bytes"));
    }

    #[test]
    fn the_file_is_not_looked_at_more_often_than_needed() {
        let fixture = fixture();
        fs::write(&fixture.path, "key number two").expect("written");
        for _ in 0..100 {
            fixture.clock.advance(CREDENTIAL_LOOK_INTERVAL / 101);
            fixture.file.current();
        }
        assert_eq!(*fixture.file.current(), "key one");
    }
}
