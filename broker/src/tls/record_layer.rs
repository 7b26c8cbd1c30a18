//! One connection's TLS records, sans-io: ciphertext in, plaintext out, and back.
//!
//! The unbuffered API of rustls keeps no buffers of its own; the caller's are shared by all connections of
//! a thread.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};

/// A TLS record: header (type, version, length) and at most 2^14 + 256 bytes. RFC 8446, 5.2
const RECORD_HEADER_BYTES: usize = 5;
const RECORD_BYTES_MAX: usize = RECORD_HEADER_BYTES + 16_384 + 256;
/// Plaintext of one record. RFC 8446, 5.1
const FRAGMENT_BYTES_MAX: usize = 16_384;
/// Header, content type, tag, explicit nonce: never more.
const RECORD_OVERHEAD_BYTES: usize = 64;
/// State changes of one `process_tls_records` round; an honest peer needs a handful.
const STEPS_PER_RECORD_MAX: usize = 64;

#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsFailure {
    #[error("TLS: {0}")]
    Protocol(#[from] rustls::Error),
    #[error("TLS: encode a record")]
    Encode,
    #[error("TLS: too many state changes for one record")]
    Stuck,
}

/// What feeding ciphertext came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fed {
    /// Ciphertext used up; the rest is an incomplete record, to be offered again with what follows.
    pub(crate) consumed: usize,
    /// The peer said close_notify.
    pub(crate) closed: bool,
}

pub(crate) struct RecordLayer {
    connection: Box<UnbufferedServerConnection>,
    established: bool,
}

impl RecordLayer {
    pub(crate) fn new(config: Arc<ServerConfig>) -> Result<Self, TlsFailure> {
        Ok(Self { connection: Box::new(UnbufferedServerConnection::new(config)?), established: false })
    }

    pub(crate) fn is_established(&self) -> bool {
        self.established
    }

    /// Decrypts what `incoming` holds, appends plaintext, and appends records to be sent to `outgoing`: also
    /// on failure, when an alert is due.
    pub(crate) fn feed(
        &mut self,
        incoming: &mut [u8],
        plaintext: &mut Vec<u8>,
        outgoing: &mut Vec<u8>,
    ) -> Result<Fed, TlsFailure> {
        let mut fed = Fed::default();
        while fed.consumed < incoming.len() && !fed.closed {
            let rest = &mut incoming[fed.consumed..];
            // Until the handshake is over, one record at a time: what follows the client's Finished in the
            // same read belongs to the next state.
            let end = if self.established { rest.len() } else { complete_record(rest) };
            if end == 0 {
                break;
            }
            let step = self.process(&mut rest[..end], plaintext, outgoing);
            let step = match step {
                Ok(step) => step,
                Err(failure) => {
                    self.encode_alert(outgoing);
                    return Err(failure);
                }
            };
            fed.consumed += step.consumed;
            fed.closed = step.closed;
            if step.consumed == 0 {
                break;
            }
        }
        Ok(fed)
    }

    /// Appends `plaintext` as records. Nothing may be sent before the handshake is over.
    pub(crate) fn encrypt(&mut self, plaintext: &[u8], outgoing: &mut Vec<u8>) -> Result<(), TlsFailure> {
        debug_assert!(self.established);
        for _ in 0..STEPS_PER_RECORD_MAX {
            let UnbufferedStatus { state, .. } = self.connection.process_tls_records(&mut []);
            match state? {
                ConnectionState::WriteTraffic(mut traffic) => {
                    let records = plaintext.len().div_ceil(FRAGMENT_BYTES_MAX).max(1);
                    let start = outgoing.len();
                    outgoing.resize(start + plaintext.len() + records * RECORD_OVERHEAD_BYTES, 0);
                    let written = traffic
                        .encrypt(plaintext, &mut outgoing[start..])
                        .map_err(|_: EncryptError| TlsFailure::Encode)?;
                    outgoing.truncate(start + written);
                    return Ok(());
                }
                ConnectionState::EncodeTlsData(mut data) => {
                    encode(outgoing, |buffer| data.encode(buffer))?;
                }
                ConnectionState::TransmitTlsData(data) => data.done(),
                _ => return Err(TlsFailure::Encode),
            }
        }
        Err(TlsFailure::Stuck)
    }

    /// Appends close_notify, if the connection came so far.
    pub(crate) fn close(&mut self, outgoing: &mut Vec<u8>) {
        if !self.established {
            return;
        }
        let UnbufferedStatus { state, .. } = self.connection.process_tls_records(&mut []);
        if let Ok(ConnectionState::WriteTraffic(mut traffic)) = state {
            let start = outgoing.len();
            outgoing.resize(start + RECORD_OVERHEAD_BYTES, 0);
            let written = traffic.queue_close_notify(&mut outgoing[start..]).unwrap_or(0);
            outgoing.truncate(start + written);
        }
    }

    fn process(
        &mut self,
        incoming: &mut [u8],
        plaintext: &mut Vec<u8>,
        outgoing: &mut Vec<u8>,
    ) -> Result<Fed, TlsFailure> {
        let mut fed = Fed::default();
        // Every record of `incoming` may need a round of its own.
        let records_max = incoming.len() / RECORD_HEADER_BYTES + 1;
        for _ in 0..records_max.saturating_mul(STEPS_PER_RECORD_MAX) {
            let UnbufferedStatus { mut discard, state } =
                self.connection.process_tls_records(&mut incoming[fed.consumed..]);
            let mut blocked = false;
            match state? {
                ConnectionState::EncodeTlsData(mut data) => {
                    encode(outgoing, |buffer| data.encode(buffer))?;
                }
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::BlockedHandshake => blocked = true,
                ConnectionState::WriteTraffic(_) => {
                    self.established = true;
                    blocked = true;
                }
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        plaintext.extend_from_slice(record.payload);
                    }
                }
                // Early data is switched off, so it can only be an end of some kind.
                _ => {
                    fed.closed = true;
                    blocked = true;
                }
            }
            fed.consumed += discard;
            if blocked {
                return Ok(fed);
            }
        }
        Err(TlsFailure::Stuck)
    }

    /// After a failure rustls may have an alert to send.
    fn encode_alert(&mut self, outgoing: &mut Vec<u8>) {
        for _ in 0..STEPS_PER_RECORD_MAX {
            let UnbufferedStatus { state, .. } = self.connection.process_tls_records(&mut []);
            match state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    if encode(outgoing, |buffer| data.encode(buffer)).is_err() {
                        return;
                    }
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                _ => return,
            }
        }
    }
}

fn encode(
    outgoing: &mut Vec<u8>,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
) -> Result<(), TlsFailure> {
    let start = outgoing.len();
    let written = match write(&mut []) {
        Ok(written) => written,
        Err(EncodeError::InsufficientSize(needed)) => {
            outgoing.resize(start + needed.required_size, 0);
            write(&mut outgoing[start..]).map_err(|_| TlsFailure::Encode)?
        }
        Err(EncodeError::AlreadyEncoded) => return Err(TlsFailure::Encode),
    };
    outgoing.truncate(start + written);
    Ok(())
}

/// The length of the first record if it is complete, else 0. A length that no record has is handed to
/// rustls as it is, which refuses it.
fn complete_record(incoming: &[u8]) -> usize {
    let Some(header) = incoming.first_chunk::<RECORD_HEADER_BYTES>() else {
        return 0;
    };
    let total = RECORD_HEADER_BYTES + usize::from(u16::from_be_bytes([header[3], header[4]]));
    if total > RECORD_BYTES_MAX {
        return incoming.len();
    }
    if incoming.len() < total { 0 } else { total }
}
