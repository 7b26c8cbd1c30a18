//! Why push services could not be asked, for the operator: in our words, since the HTTP client's quote URLs.

use std::error::Error;
use std::io;

use parking_lot::Mutex;
use sotto_model::UnixMillis;

/// What a pusher met last.
#[derive(Default)]
pub(crate) struct Trouble {
    /// Locked for a note or a look.
    last: Mutex<Option<(&'static str, UnixMillis)>>,
}

impl Trouble {
    pub(crate) fn note(&self, error: &reqwest::Error, now: UnixMillis) {
        *self.last.lock() = Some((why(error), now));
    }

    pub(crate) fn last(&self) -> Option<(&'static str, UnixMillis)> {
        *self.last.lock()
    }
}

fn why(error: &reqwest::Error) -> &'static str {
    let first: &(dyn Error + 'static) = error;
    let mut causes = std::iter::successors(Some(first), |&cause| match cause.downcast_ref::<io::Error>() {
        // What it wraps is not among its sources.
        Some(io) => io.get_ref().map(|wrapped| wrapped as &(dyn Error + 'static)),
        None => cause.source(),
    });
    let found = causes.find_map(|cause| {
        match (cause.downcast_ref::<rustls::Error>(), cause.downcast_ref().map(io::Error::kind)) {
            (Some(rustls::Error::InvalidCertificate(_)), _) => Some("certificate is not trusted"),
            (Some(_), _) => Some("TLS handshake failed"),
            (None, Some(io::ErrorKind::ConnectionRefused)) => Some("connection refused"),
            (None, Some(io::ErrorKind::NotFound)) => Some("host is not known"),
            _ => None,
        }
    });
    match found {
        Some(found) => found,
        None if error.is_timeout() => "timed out",
        None if error.is_connect() => "cannot be reached",
        None => "connection was lost",
    }
}
