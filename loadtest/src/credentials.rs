//! Client identifiers, user names and passwords.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::limits::CREDENTIALS_BYTES_MAX;
use crate::template::{Place, RunId, Template};

/// No `Debug` that shows a password.
#[derive(Clone)]
pub(crate) struct Credentials {
    client_id: Template,
    username: Option<Template>,
    passwords: Arc<[Box<str>]>,
    /// Stand in for all of the above.
    lines: Arc<[Line]>,
}

/// Of a credentials file.
#[derive(Debug)]
struct Line {
    /// Empty: as the template says.
    client_id: Box<str>,
    username: Box<str>,
    password: Box<str>,
}

/// Who a client is.
pub(crate) struct Identity<'a> {
    pub(crate) client_id: String,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<&'a [u8]>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum CredentialsError {
    #[error("{0} `{1}` cannot be read: {2}")]
    Unreadable(&'static str, Box<Path>, io::Error),
    #[error("{0} is larger than {CREDENTIALS_BYTES_MAX} bytes")]
    TooLarge(&'static str),
    #[error("{0} is empty")]
    Empty(&'static str),
    #[error("line {0} of the credentials file is not client-id,user,password")]
    Malformed(usize),
    #[error("the credentials file has {lines} lines for {clients} clients")]
    TooFew { lines: usize, clients: u64 },
}

impl Credentials {
    pub(crate) fn load(
        client_id: Template,
        username: Option<Template>,
        passwords: Option<&Path>,
        credentials: Option<&Path>,
    ) -> Result<Self, CredentialsError> {
        let passwords = passwords.map(|path| read_lines("password file", path)).transpose()?;
        let lines = credentials.map(|path| read_lines("credentials file", path)).transpose()?;
        let lines = lines.unwrap_or_default();
        let parse = |(at, line): (usize, &str)| Line::parse(line).ok_or(CredentialsError::Malformed(at + 1));
        let lines = lines.iter().map(AsRef::as_ref).enumerate().map(parse).collect::<Result<_, _>>()?;
        Ok(Self { client_id, username, passwords: passwords.unwrap_or_default().into(), lines })
    }

    /// Two clients with one identifier would throw each other out. [MQTT-3.1.4-3]
    pub(crate) fn suffice(&self, clients: u64) -> Result<(), CredentialsError> {
        let lines = self.lines.len();
        let sufficient =
            lines == 0 || lines as u64 >= clients || self.lines.iter().all(|line| line.client_id.is_empty());
        if sufficient { Ok(()) } else { Err(CredentialsError::TooFew { lines, clients }) }
    }

    /// Of client i; from a file, line i mod lines.
    pub(crate) fn identity(&self, number: u32, run: RunId) -> Identity<'_> {
        let place = Place { number, run, ..Place::default() };
        let index = number as usize;
        if let Some(line) = index.checked_rem(self.lines.len()).map(|at| &self.lines[at]) {
            let client_id = if line.client_id.is_empty() {
                self.client_id.expand(Place { user: &line.username, ..place })
            } else {
                line.client_id.to_string()
            };
            let username = (!line.username.is_empty()).then(|| line.username.to_string());
            let password = (!line.password.is_empty()).then_some(line.password.as_bytes());
            return Identity { client_id, username, password };
        }
        let username = self.username.as_ref().map(|template| template.expand(place));
        let user = username.as_deref().unwrap_or_default();
        let client_id = self.client_id.expand(Place { user, ..place });
        let password = index.checked_rem(self.passwords.len()).map(|at| self.passwords[at].as_bytes());
        Identity { client_id, username, password }
    }
}

impl Line {
    /// The password is the rest of the line: it may hold commas.
    fn parse(raw: &str) -> Option<Self> {
        let mut fields = raw.splitn(3, ',');
        let mut field = || fields.next().map(Into::into);
        Some(Self { client_id: field()?, username: field()?, password: field()? })
    }
}

fn read_lines(what: &'static str, path: &Path) -> Result<Vec<Box<str>>, CredentialsError> {
    let unreadable = |error| CredentialsError::Unreadable(what, path.into(), error);
    if fs::metadata(path).map_err(unreadable)?.len() > CREDENTIALS_BYTES_MAX {
        return Err(CredentialsError::TooLarge(what));
    }
    let text = fs::read_to_string(path).map_err(unreadable)?;
    let lines: Vec<Box<str>> = text.lines().map(Into::into).collect();
    if lines.is_empty() { Err(CredentialsError::Empty(what)) } else { Ok(lines) }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: RunId = RunId(1);

    fn template(raw: &str) -> Template {
        raw.parse().expect("a template")
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), text).expect("written");
        file
    }

    fn from_file(text: &str) -> Result<Credentials, CredentialsError> {
        Credentials::load(template("load-%i"), None, None, Some(file(text).path()))
    }

    #[test]
    fn clients_take_the_lines_of_the_password_file_in_turn() {
        let file = file("one\ntwo words\n");
        let credentials =
            Credentials::load(template("%u-phone"), Some(template("user-%i")), Some(file.path()), None);
        let credentials = credentials.expect("credentials");
        assert_eq!(credentials.identity(2, RUN).username.as_deref(), Some("user-2"));
        assert_eq!(credentials.identity(2, RUN).client_id, "user-2-phone");
        assert_eq!(credentials.identity(0, RUN).password, Some(&b"one"[..]));
        assert_eq!(credentials.identity(1, RUN).password, Some(&b"two words"[..]));
        assert_eq!(credentials.identity(2, RUN).password, Some(&b"one"[..]));
        assert!(!format!("{credentials:?}").contains("one"));
    }

    #[test]
    fn without_a_file_there_is_no_password() {
        let credentials = Credentials::load(template("load-%r-%i"), None, None, None).expect("credentials");
        let identity = credentials.identity(0, RUN);
        assert_eq!((identity.password, identity.username), (None, None));
        assert_eq!(identity.client_id, "load-00000001-0");
    }

    #[test]
    fn an_empty_password_file_is_refused() {
        let refused = Credentials::load(template("%i"), None, Some(file("").path()), None);
        assert!(matches!(refused, Err(CredentialsError::Empty(_))));
    }

    #[test]
    fn a_line_of_the_credentials_file_is_one_client() {
        let credentials = from_file("phone-a,ann,pa,ss\n,ben,\n").expect("credentials");
        let ann = credentials.identity(0, RUN);
        assert_eq!((ann.client_id.as_str(), ann.username.as_deref()), ("phone-a", Some("ann")));
        assert_eq!(ann.password, Some(&b"pa,ss"[..]));
        let ben = credentials.identity(1, RUN);
        assert_eq!((ben.client_id.as_str(), ben.password), ("load-1", None));
        assert!(credentials.suffice(2).is_ok());
        assert!(matches!(credentials.suffice(3), Err(CredentialsError::TooFew { lines: 2, clients: 3 })));
    }

    #[test]
    fn a_line_with_too_few_fields_is_named_by_its_number() {
        assert!(matches!(from_file("a,b,c\na,b\n"), Err(CredentialsError::Malformed(2))));
    }
}
