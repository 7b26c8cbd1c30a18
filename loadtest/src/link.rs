//! A connection between the process that makes the report and one that does the work: frames of JSON, each with
//! its length and, over a network, a seal.
//!
//! ```text
//! agent        → coordinator   "sotto-loadtest 1\n", 32 random bytes A
//! coordinator  → agent         32 random bytes C, HMAC(token, "coordinator" A C)
//! agent        → coordinator   HMAC(token, "agent" A C)
//! then each way                length u32, JSON, HMAC(key of the direction, number of the frame u64, JSON)
//! ```
//!
//! HMAC is HMAC-SHA-256; the key of a direction is HMAC(token, its name A C). Neither side learns the token from
//! the other, and nobody between them can send, change, repeat or leave out a frame unseen. They can be read:
//! a frame holds no password.

use std::io::{self, Read, Write};

use aws_lc_rs::hmac;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::limits::TOKEN_BYTES_MIN;

/// Shared by the two who talk; no `Debug`.
pub(crate) struct Token(hmac::Key);

pub(crate) struct Sender {
    stream: Box<dyn Write + Send>,
    seal: Option<Seal>,
}

pub(crate) struct Receiver {
    stream: Box<dyn Read + Send>,
    seal: Option<Seal>,
    frame_bytes_max: usize,
}

struct Seal {
    key: hmac::Key,
    frames: u64,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("{0}")]
    Unreachable(io::Error),
    #[error("connection lost: {0}")]
    Lost(io::ErrorKind),
    #[error("no answer in time: is it an agent?")]
    Late,
    #[error("not an agent of this version")]
    NoAgent,
    #[error("token does not match")]
    TokenMismatch,
    #[error("frame was changed on its way")]
    Changed,
    #[error("frame of {0} bytes is too long")]
    TooLong(usize),
    #[error("frame cannot be understood: {0}")]
    Malformed(serde_json::Error),
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("token is shorter than {TOKEN_BYTES_MIN} bytes: make one with `openssl rand -base64 32`")]
    TooShort,
}

const GREETING: &[u8] = b"sotto-loadtest 1\n";
const NONCE_BYTES: usize = 32;
const TAG_BYTES: usize = 32;

type Nonces = [u8; 2 * NONCE_BYTES];

impl Token {
    /// White space around it does not count.
    pub(crate) fn new(raw: &str) -> Result<Self, TokenError> {
        let raw = raw.trim();
        if raw.len() < TOKEN_BYTES_MIN {
            return Err(TokenError::TooShort);
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, raw.as_bytes())))
    }

    fn tag(&self, purpose: &str, nonces: &Nonces) -> hmac::Tag {
        hmac::sign(&self.0, &[purpose.as_bytes(), nonces].concat())
    }

    fn verify(&self, purpose: &str, nonces: &Nonces, tag: &[u8]) -> Result<(), LinkError> {
        let said = [purpose.as_bytes(), nonces].concat();
        hmac::verify(&self.0, &said, tag).map_err(|_| LinkError::TokenMismatch)
    }

    fn seal(&self, direction: &str, nonces: &Nonces) -> Seal {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.tag(direction, nonces).as_ref());
        Seal { key, frames: 0 }
    }

    /// The side that is asked to do work. Nothing is said to who does not know the token.
    pub(crate) fn admit(
        &self,
        mut from: impl Read + Send + 'static,
        mut to: impl Write + Send + 'static,
        frame_bytes_max: usize,
    ) -> Result<(Sender, Receiver), LinkError> {
        let own: [u8; NONCE_BYTES] = rand::random();
        to.write_all(&[GREETING, &own].concat())?;
        let mut answer = [0; NONCE_BYTES + TAG_BYTES];
        from.read_exact(&mut answer)?;
        let (theirs, tag) = answer.split_at(NONCE_BYTES);
        let nonces = nonces(&own, theirs);
        self.verify("coordinator", &nonces, tag)?;
        to.write_all(self.tag("agent", &nonces).as_ref())?;
        let seals = (self.seal("from agent", &nonces), self.seal("from coordinator", &nonces));
        Ok(ends(from, to, Some(seals), frame_bytes_max))
    }

    /// The side that gives out work.
    pub(crate) fn present(
        &self,
        mut from: impl Read + Send + 'static,
        mut to: impl Write + Send + 'static,
        frame_bytes_max: usize,
    ) -> Result<(Sender, Receiver), LinkError> {
        let mut greeting = [0; GREETING.len() + NONCE_BYTES];
        from.read_exact(&mut greeting)?;
        let theirs = greeting.strip_prefix(GREETING).ok_or(LinkError::NoAgent)?;
        let own: [u8; NONCE_BYTES] = rand::random();
        let nonces = nonces(theirs, &own);
        to.write_all(&[&own, self.tag("coordinator", &nonces).as_ref()].concat())?;
        let mut tag = [0; TAG_BYTES];
        // An agent that was told the wrong thing says nothing more.
        from.read_exact(&mut tag).map_err(|_| LinkError::TokenMismatch)?;
        self.verify("agent", &nonces, &tag)?;
        let seals = (self.seal("from coordinator", &nonces), self.seal("from agent", &nonces));
        Ok(ends(from, to, Some(seals), frame_bytes_max))
    }
}

/// Between a process and the one that it has started: nobody else holds the pipes.
pub(crate) fn pipe(
    from: impl Read + Send + 'static,
    to: impl Write + Send + 'static,
    frame_bytes_max: usize,
) -> (Sender, Receiver) {
    ends(from, to, None, frame_bytes_max)
}

fn ends(
    from: impl Read + Send + 'static,
    to: impl Write + Send + 'static,
    seals: Option<(Seal, Seal)>,
    frame_bytes_max: usize,
) -> (Sender, Receiver) {
    let (outward, inward) = seals.unzip();
    let sender = Sender { stream: Box::new(to), seal: outward };
    (sender, Receiver { stream: Box::new(from), seal: inward, frame_bytes_max })
}

fn nonces(agent: &[u8], coordinator: &[u8]) -> Nonces {
    let mut nonces = [0; 2 * NONCE_BYTES];
    nonces[..NONCE_BYTES].copy_from_slice(agent);
    nonces[NONCE_BYTES..].copy_from_slice(coordinator);
    nonces
}

impl Sender {
    pub(crate) fn send(&mut self, message: &impl Serialize) -> Result<(), LinkError> {
        let body = serde_json::to_vec(message).map_err(LinkError::Malformed)?;
        let length = u32::try_from(body.len()).map_err(|_| LinkError::TooLong(body.len()))?;
        let mut frame = length.to_be_bytes().to_vec();
        frame.extend_from_slice(&body);
        if let Some(seal) = &mut self.seal {
            let numbered = seal.next(&body);
            frame.extend_from_slice(hmac::sign(&seal.key, &numbered).as_ref());
        }
        self.stream.write_all(&frame)?;
        Ok(self.stream.flush()?)
    }
}

impl Receiver {
    /// Waits for the next.
    pub(crate) fn receive<M: DeserializeOwned>(&mut self) -> Result<M, LinkError> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > self.frame_bytes_max {
            return Err(LinkError::TooLong(length));
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        if let Some(seal) = &mut self.seal {
            let mut tag = [0; TAG_BYTES];
            self.stream.read_exact(&mut tag)?;
            let numbered = seal.next(&body);
            hmac::verify(&seal.key, &numbered, &tag).map_err(|_| LinkError::Changed)?;
        }
        serde_json::from_slice(&body).map_err(LinkError::Malformed)
    }
}

impl Seal {
    fn next(&mut self, body: &[u8]) -> Vec<u8> {
        let numbered = [&self.frames.to_be_bytes(), body].concat();
        self.frames += 1;
        numbered
    }
}

impl From<io::Error> for LinkError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Late,
            kind => Self::Lost(kind),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    use super::*;

    const BYTES_MAX: usize = 1000;

    fn token(raw: &str) -> Token {
        Token::new(raw).expect("long enough")
    }

    fn sockets() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let there = TcpStream::connect(listener.local_addr().expect("an address")).expect("connected");
        (listener.accept().expect("accepted").0, there)
    }

    fn other(stream: &TcpStream) -> TcpStream {
        stream.try_clone().expect("a second handle")
    }

    type Ends = (Sender, Receiver);

    fn meet(agent: &str, coordinator: &str) -> (Result<Ends, LinkError>, Result<Ends, LinkError>) {
        let (here, there) = sockets();
        let agent = token(agent);
        let admitting = thread::spawn(move || agent.admit(other(&here), here, BYTES_MAX));
        let presented = token(coordinator).present(other(&there), there, BYTES_MAX);
        (admitting.join().expect("no panic"), presented)
    }

    #[test]
    fn two_who_share_a_token_understand_each_other() {
        let (agent, coordinator) = meet("a long enough token\n", "a long enough token");
        let (mut agent, mut coordinator) = (agent.expect("admitted"), coordinator.expect("admitted"));
        for k in 0..3_u32 {
            coordinator.0.send(&("work", k)).expect("sent");
            assert_eq!(agent.1.receive::<(String, u32)>().expect("received"), ("work".into(), k));
            agent.0.send(&k).expect("sent");
            assert_eq!(coordinator.1.receive::<u32>().expect("received"), k);
        }
    }

    #[test]
    fn another_token_opens_nothing_on_either_side() {
        let (agent, coordinator) = meet("a long enough token", "another long token");
        assert!(matches!(agent, Err(LinkError::TokenMismatch)));
        assert!(matches!(coordinator, Err(LinkError::TokenMismatch)));
    }

    #[test]
    fn an_agent_that_only_repeats_what_it_hears_is_found_out() {
        let (mut here, there) = sockets();
        let impostor = thread::spawn(move || {
            here.write_all(&[GREETING, &[7; NONCE_BYTES]].concat()).expect("sent");
            let mut answer = [0; NONCE_BYTES + TAG_BYTES];
            here.read_exact(&mut answer).expect("an answer");
            here.write_all(&answer[NONCE_BYTES..]).expect("sent");
        });
        let presented = token("a long enough token").present(other(&there), there, BYTES_MAX);
        assert!(matches!(presented, Err(LinkError::TokenMismatch)));
        impostor.join().expect("no panic");
    }

    #[test]
    fn a_frame_that_is_changed_or_repeated_is_refused() {
        let key = || Some(Seal { key: hmac::Key::new(hmac::HMAC_SHA256, b"key"), frames: 0 });
        let mut frame = Vec::new();
        let (reader, mut writer) = sockets();
        let mut sender = Sender { stream: Box::new(other(&writer)), seal: key() };
        sender.send(&"work").expect("sent");
        let mut reader_of_frame = other(&reader);
        frame.resize(4 + 6 + TAG_BYTES, 0);
        reader_of_frame.read_exact(&mut frame).expect("the frame");
        let mut receiver = Receiver { stream: Box::new(reader), seal: key(), frame_bytes_max: BYTES_MAX };
        writer.write_all(&frame).expect("sent");
        assert_eq!(receiver.receive::<String>().expect("as sent"), "work");
        writer.write_all(&frame).expect("sent again");
        assert!(matches!(receiver.receive::<String>(), Err(LinkError::Changed)));
        receiver.seal = key();
        frame[6] ^= 1;
        writer.write_all(&frame).expect("sent changed");
        assert!(matches!(receiver.receive::<String>(), Err(LinkError::Changed)));
    }

    #[test]
    fn a_frame_longer_than_allowed_is_refused_before_it_is_read() {
        let (reader, mut writer) = sockets();
        let mut receiver = pipe(other(&reader), reader, BYTES_MAX).1;
        writer.write_all(&u32::MAX.to_be_bytes()).expect("sent");
        assert!(matches!(receiver.receive::<String>(), Err(LinkError::TooLong(_))));
    }

    #[test]
    fn a_token_that_can_be_guessed_is_refused() {
        assert!(Token::new("  short  \n").is_err());
    }
}
