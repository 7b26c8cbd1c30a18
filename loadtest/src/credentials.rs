//! User names and passwords of the clients.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use crate::limits::PASSWORD_FILE_BYTES_MAX;
use crate::template::{RunId, Template};

/// No `Debug` that shows a password.
pub(crate) struct Credentials {
    username: Option<Template>,
    passwords: Vec<Box<str>>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum CredentialsError {
    #[error("password file cannot be read: {0}")]
    Unreadable(io::Error),
    #[error("password file is larger than {PASSWORD_FILE_BYTES_MAX} bytes")]
    TooLarge,
    #[error("password file is empty")]
    Empty,
}

impl Credentials {
    pub(crate) fn load(
        username: Option<Template>,
        passwords: Option<&Path>,
    ) -> Result<Self, CredentialsError> {
        let passwords = passwords.map(read_lines).transpose()?.unwrap_or_default();
        Ok(Self { username, passwords })
    }

    pub(crate) fn username(&self, client: u32, run: RunId) -> Option<String> {
        self.username.as_ref().map(|template| template.expand(client, run))
    }

    /// Line i mod lines of the file.
    pub(crate) fn password(&self, client: u32) -> Option<&[u8]> {
        let line = (client as usize).checked_rem(self.passwords.len())?;
        Some(self.passwords[line].as_bytes())
    }
}

fn read_lines(path: &Path) -> Result<Vec<Box<str>>, CredentialsError> {
    if fs::metadata(path).map_err(CredentialsError::Unreadable)?.len() > PASSWORD_FILE_BYTES_MAX {
        return Err(CredentialsError::TooLarge);
    }
    let text = fs::read_to_string(path).map_err(CredentialsError::Unreadable)?;
    let lines: Vec<Box<str>> = text.lines().map(Into::into).collect();
    if lines.is_empty() { Err(CredentialsError::Empty) } else { Ok(lines) }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_take_the_lines_of_the_password_file_in_turn() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), "one\ntwo words\n").expect("written");
        let username = "user-%i".parse().expect("a template");
        let credentials = Credentials::load(Some(username), Some(file.path())).expect("credentials");
        assert_eq!(credentials.username(2, RunId(0)).as_deref(), Some("user-2"));
        assert_eq!(credentials.password(0), Some(&b"one"[..]));
        assert_eq!(credentials.password(1), Some(&b"two words"[..]));
        assert_eq!(credentials.password(2), Some(&b"one"[..]));
        assert!(!format!("{credentials:?}").contains("one"));
    }

    #[test]
    fn without_a_file_there_is_no_password() {
        let credentials = Credentials::load(None, None).expect("credentials");
        assert_eq!(credentials.password(0), None);
        assert_eq!(credentials.username(0, RunId(0)), None);
    }

    #[test]
    fn an_empty_password_file_is_refused() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert!(matches!(Credentials::load(None, Some(file.path())), Err(CredentialsError::Empty)));
    }
}
