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
/// change_cipher_spec to application_data. RFC 8446, B.1
const CONTENT_TYPES: std::ops::RangeInclusive<u8> = 20..=23;
const MAJOR_VERSION: u8 = 3;
/// Plaintext of one record. RFC 8446, 5.1
const FRAGMENT_BYTES_MAX: usize = 16_384;
/// Header, content type, tag, explicit nonce: never more.
const RECORD_OVERHEAD_BYTES: usize = 64;
/// State changes of one `process_tls_records` round; an honest peer needs a handful.
const STEPS_PER_RECORD_MAX: usize = 64;
/// Bytes of records over which one handshake message may be spread; a ClientHello is below 2 KiB.
const HANDSHAKE_MESSAGE_BYTES_MAX: usize = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsFailure {
    #[error("TLS: {0}")]
    Protocol(#[from] rustls::Error),
    #[error("TLS: encode a record")]
    Encode,
    #[error("TLS: too many state changes for one record")]
    Stuck,
    #[error("TLS: a handshake message is too long")]
    HandshakeTooLong,
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
    /// Bytes at the front of what is offered that rustls has seen and not used up: the records of a handshake
    /// message that goes on in the next.
    held_bytes: u32,
}

impl RecordLayer {
    pub(crate) fn new(config: Arc<ServerConfig>) -> Result<Self, TlsFailure> {
        let connection = Box::new(UnbufferedServerConnection::new(config)?);
        Ok(Self { connection, established: false, held_bytes: 0 })
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
            let held = self.held_bytes as usize;
            // Until the handshake is over, one record at a time: what follows the client's Finished in the
            // same read belongs to the next state.
            let end = if self.established {
                rest.len()
            } else {
                match complete_record(rest.get(held..).unwrap_or_default()) {
                    0 => break,
                    record => held + record,
                }
            };
            if held > HANDSHAKE_MESSAGE_BYTES_MAX {
                return Err(TlsFailure::HandshakeTooLong);
            }
            let step = self.process(&mut rest[..end], plaintext, outgoing)?;
            fed.consumed += step.consumed;
            fed.closed = step.closed;
            if step.consumed > 0 {
                self.held_bytes = 0;
            } else if self.established {
                break;
            } else {
                self.held_bytes = u32::try_from(end).expect("little more than HANDSHAKE_MESSAGE_BYTES_MAX");
            }
        }
        Ok(fed)
    }

    /// Appends `plaintext` as records. Nothing may be sent before the handshake is over. `rest` is what the
    /// last feed did not use up: rustls may stand in the middle of it.
    pub(crate) fn encrypt(
        &mut self,
        plaintext: &[u8],
        rest: &mut [u8],
        outgoing: &mut Vec<u8>,
    ) -> Result<(), TlsFailure> {
        debug_assert!(self.established);
        for _ in 0..STEPS_PER_RECORD_MAX {
            let UnbufferedStatus { state, .. } = self.connection.process_tls_records(rest);
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

    /// Appends close_notify, if the connection came so far; `rest` as for `encrypt`.
    pub(crate) fn close(&mut self, rest: &mut [u8], outgoing: &mut Vec<u8>) {
        if !self.established {
            return;
        }
        let UnbufferedStatus { state, .. } = self.connection.process_tls_records(rest);
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
            let state = match state {
                Ok(state) => state,
                Err(error) => {
                    self.encode_alert(&mut incoming[fed.consumed + discard..], outgoing);
                    return Err(error.into());
                }
            };
            match state {
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

    /// After a failure rustls may have an alert to send. It stands in the middle of `rest`, and is asked once:
    /// it gives the alert before it looks at `rest` again, where it would fail again.
    fn encode_alert(&mut self, rest: &mut [u8], outgoing: &mut Vec<u8>) {
        let UnbufferedStatus { state, .. } = self.connection.process_tls_records(rest);
        if let Ok(ConnectionState::EncodeTlsData(mut data)) = state {
            // The connection has failed: an alert that cannot be told is not missed.
            let _ = encode(outgoing, |buffer| data.encode(buffer));
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

/// The length of the first record if it is complete, else 0. A header that no record has is handed to
/// rustls as it is, which refuses it.
fn complete_record(incoming: &[u8]) -> usize {
    let Some(header) = incoming.first_chunk::<RECORD_HEADER_BYTES>() else {
        return 0;
    };
    let total = RECORD_HEADER_BYTES + usize::from(u16::from_be_bytes([header[3], header[4]]));
    let is_record = CONTENT_TYPES.contains(&header[0]) && header[1] == MAJOR_VERSION;
    if !is_record || total > RECORD_BYTES_MAX {
        return incoming.len();
    }
    if incoming.len() < total { 0 } else { total }
}

#[cfg(test)]
mod tests;
