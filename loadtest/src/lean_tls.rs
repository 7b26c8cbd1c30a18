//! TLS 1.3 after its handshake, in some 200 bytes: a socket, two keys, two counters.
//!
//! rustls makes the handshake and checks the certificate; then its connection, some kilobytes, is given up and
//! only what it has derived is kept. What is given up with it: tickets are ignored, and a peer that changes its
//! keys ends the connection, as does the number of records up to which keys are safe. For sessions that are
//! held, not for those that carry traffic.
//!
//! ```text
//! +---------+---------+---------+--------------------------------------------+----------+
//! | type 23 | 03 03   | length  | plaintext, its type, zeroes   (encrypted)  | tag (16) |
//! +---------+---------+---------+--------------------------------------------+----------+
//! ```

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use rustls::{CipherSuite, ConnectionTrafficSecrets, ExtractedSecrets};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use crate::limits::{RECORDS_PER_KEY_MAX, SOCKET_READ_BYTES};
use crate::record_reader::RECORD_HEADER_BYTES;

/// Plaintext of a record. RFC 8446, 5.1
const FRAGMENT_BYTES_MAX: usize = 16_384;
/// RFC 8446, 5.2
const CIPHERTEXT_BYTES_MAX: usize = FRAGMENT_BYTES_MAX + 256;
const TAG_BYTES: usize = 16;
/// RFC 8446, B.1
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
/// RFC 8446, B.2
const WARNING: u8 = 1;
const CLOSE_NOTIFY: u8 = 0;
/// RFC 8446, B.3
const NEW_SESSION_TICKET: u8 = 4;
const LONGEST_KEY_BYTES: usize = 32;
const IV_BYTES: usize = 12;

#[derive(Debug)]
pub(crate) struct LeanTls {
    tcp: TcpStream,
    suite: CipherSuite,
    sending: Direction,
    receiving: Direction,
    /// Received, and not decrypted.
    sealed: Vec<u8>,
    closed: bool,
    /// Records; the first `written` bytes of them are with the kernel.
    unsent: Vec<u8>,
    written: usize,
}

/// One direction's key. It is expanded for each record: an idle session has one a minute.
struct Direction {
    algorithm: &'static Algorithm,
    key: Zeroizing<[u8; LONGEST_KEY_BYTES]>,
    iv: [u8; IV_BYTES],
    sequence: u64,
}

impl LeanTls {
    /// Goes on where a handshake has ended. `ahead` is what came behind its last record. `None`: not with
    /// these secrets.
    pub(crate) fn new(
        tcp: TcpStream,
        ahead: Vec<u8>,
        suite: CipherSuite,
        secrets: &ExtractedSecrets,
    ) -> Option<Self> {
        Some(Self {
            tcp,
            suite,
            sending: Direction::new(&secrets.tx)?,
            receiving: Direction::new(&secrets.rx)?,
            sealed: ahead,
            closed: false,
            unsent: Vec::new(),
            written: 0,
        })
    }

    pub(crate) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    pub(crate) fn suite(&self) -> CipherSuite {
        self.suite
    }

    /// Decrypts the records that are complete, as long as their plaintext has room in `buf`.
    fn open_records(&mut self, buf: &mut ReadBuf<'_>) -> io::Result<()> {
        let mut used = 0;
        while !self.closed {
            let Some(header) = self.sealed[used..].first_chunk::<RECORD_HEADER_BYTES>() else { break };
            let header = *header;
            let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
            if header[0] != APPLICATION_DATA || length > CIPHERTEXT_BYTES_MAX {
                return Err(violation("a record that TLS 1.3 does not know"));
            }
            let start = used + RECORD_HEADER_BYTES;
            if self.sealed.len() < start + length || buf.remaining() < length.min(FRAGMENT_BYTES_MAX) {
                break;
            }
            let record = &mut self.sealed[start..start + length];
            let plaintext = self.receiving.open(header, record)?;
            // Behind the plaintext stand its type and zeroes. RFC 8446, 5.4
            let end = plaintext.iter().rposition(|byte| *byte != 0);
            let end = end.ok_or_else(|| violation("a record without a type"))?;
            match (plaintext[end], &plaintext[..end]) {
                (APPLICATION_DATA, data) => buf.put_slice(data),
                (HANDSHAKE, [NEW_SESSION_TICKET, ..]) => {}
                (ALERT, [_, CLOSE_NOTIFY]) => self.closed = true,
                (ALERT, _) => return Err(violation("a TLS alert")),
                _ => {
                    return Err(violation(
                        "a change of keys, which sessions that are only held do not follow",
                    ));
                }
            }
            used = start + length;
        }
        if used == self.sealed.len() {
            self.sealed = Vec::new();
        } else {
            self.sealed.drain(..used);
        }
        Ok(())
    }

    /// Ready once every record is with the kernel.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.unsent.len() {
            let written = ready!(Pin::new(&mut self.tcp).poll_write(cx, &self.unsent[self.written..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += written;
        }
        self.unsent = Vec::new();
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

impl Direction {
    fn new((sequence, secrets): &(u64, ConnectionTrafficSecrets)) -> Option<Self> {
        let (algorithm, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return None,
        };
        let mut kept = Zeroizing::new([0; LONGEST_KEY_BYTES]);
        kept.get_mut(..key.as_ref().len())?.copy_from_slice(key.as_ref());
        Some(Self { algorithm, key: kept, iv: iv.as_ref().try_into().ok()?, sequence: *sequence })
    }

    /// The key expanded, and the nonce of the next record. RFC 8446, 5.3
    fn next(&mut self) -> io::Result<(LessSafeKey, Nonce)> {
        if self.sequence >= RECORDS_PER_KEY_MAX {
            return Err(violation("more records than one key is good for"));
        }
        let mut nonce = self.iv;
        for (byte, sequence) in nonce[IV_BYTES - 8..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= sequence;
        }
        self.sequence += 1;
        let key = UnboundKey::new(self.algorithm, &self.key[..self.algorithm.key_len()]);
        let key = key.map_err(|_| violation("a key that cannot be used"))?;
        Ok((LessSafeKey::new(key), Nonce::assume_unique_for_key(nonce)))
    }

    fn open<'a>(&mut self, header: [u8; RECORD_HEADER_BYTES], record: &'a mut [u8]) -> io::Result<&'a [u8]> {
        let (key, nonce) = self.next()?;
        let opened = key.open_in_place(nonce, Aad::from(header), record);
        opened.map(|plaintext| &*plaintext).map_err(|_| violation("a record that cannot be decrypted"))
    }

    fn seal(&mut self, content_type: u8, plaintext: &[u8], records: &mut Vec<u8>) -> io::Result<()> {
        let (key, nonce) = self.next()?;
        let length = plaintext.len() + 1 + TAG_BYTES;
        let [high, low] = u16::try_from(length).expect("a fragment is at most 2^14 bytes").to_be_bytes();
        let header = [APPLICATION_DATA, 3, 3, high, low];
        records.extend_from_slice(&header);
        let start = records.len();
        records.extend_from_slice(plaintext);
        records.push(content_type);
        let tag = key.seal_in_place_separate_tag(nonce, Aad::from(header), &mut records[start..]);
        records.extend_from_slice(tag.map_err(|_| violation("a record that cannot be encrypted"))?.as_ref());
        Ok(())
    }
}

impl std::fmt::Debug for Direction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Direction(..)")
    }
}

impl AsyncRead for LeanTls {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        assert!(buf.remaining() >= FRAGMENT_BYTES_MAX, "there is room for the plaintext of any record");
        let start = buf.filled().len();
        loop {
            this.open_records(buf)?;
            if buf.filled().len() > start || this.closed {
                return Poll::Ready(Ok(()));
            }
            let mut bytes = [0; SOCKET_READ_BYTES];
            let mut read = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut this.tcp).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                // Many brokers end a connection without close_notify.
                return Poll::Ready(Ok(()));
            }
            this.sealed.extend_from_slice(read.filled());
        }
    }
}

impl AsyncWrite for LeanTls {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // What was taken before goes first.
        ready!(this.poll_drain(cx))?;
        for fragment in buf.chunks(FRAGMENT_BYTES_MAX) {
            this.sending.seal(APPLICATION_DATA, fragment, &mut this.unsent)?;
        }
        if let Poll::Ready(Err(error)) = this.poll_drain(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_drain(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.closed {
            this.closed = true;
            this.sending.seal(ALERT, &[WARNING, CLOSE_NOTIFY], &mut this.unsent)?;
        }
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.tcp).poll_shutdown(cx)
    }
}

fn violation(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::pki_types::{PrivateKeyDer, ServerName};
    use rustls::{ClientConfig, RootCertStore, ServerConfig};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::server::TlsStream;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;
    use crate::limits::READ_BYTES_MIN;
    use crate::record_reader::RecordReader;

    const SUITES: [CipherSuite; 3] = [
        CipherSuite::TLS13_AES_128_GCM_SHA256,
        CipherSuite::TLS13_AES_256_GCM_SHA384,
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    ];

    /// After a real handshake with rustls, which sends tickets behind it.
    async fn pair(suite: CipherSuite) -> (LeanTls, TlsStream<TcpStream>) {
        let certified = rcgen::generate_simple_self_signed(vec!["localhost".into()]).expect("a certificate");
        let certificate = certified.cert.der().clone();
        let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .expect("a server");
        let mut one_suite = rustls::crypto::CryptoProvider::clone(&provider);
        one_suite.cipher_suites.retain(|known| known.suite() == suite);
        let mut roots = RootCertStore::empty();
        roots.add(certificate).expect("an authority");
        let mut client = ClientConfig::builder_with_provider(Arc::new(one_suite))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.enable_secret_extraction = true;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let accept = async {
            let (tcp, _) = listener.accept().await.expect("a client");
            TlsAcceptor::from(Arc::new(server)).accept(tcp).await.expect("a handshake")
        };
        let connect = async {
            let reader = RecordReader::new(TcpStream::connect(address).await.expect("connected"));
            let name = ServerName::try_from("localhost").expect("a name");
            let stream = TlsConnector::from(Arc::new(client)).connect(name, reader).await;
            let (reader, session) = stream.expect("a handshake").into_inner();
            let (tcp, ahead) = reader.into_parts();
            let secrets = session.dangerous_extract_secrets().expect("secrets");
            LeanTls::new(tcp, ahead, suite, &secrets).expect("a known suite")
        };
        tokio::join!(connect, accept)
    }

    #[tokio::test]
    async fn bytes_pass_both_ways_whatever_their_number_and_the_suite() {
        for suite in SUITES {
            let (mut client, mut server) = pair(suite).await;
            for len in [1, 100, FRAGMENT_BYTES_MAX, 3 * FRAGMENT_BYTES_MAX + 7] {
                let sent: Vec<u8> = (0..len).map(|_| rand::random()).collect();
                let received = exchange(&mut client, &mut server, &sent).await;
                assert!(received == sent, "{suite:?}, {len} bytes to the server");
                let received = exchange(&mut server, &mut client, &sent).await;
                assert!(received == sent, "{suite:?}, {len} bytes to the client");
            }
        }
    }

    async fn exchange(
        from: &mut (impl AsyncWrite + Unpin),
        to: &mut (impl AsyncRead + Unpin),
        sent: &[u8],
    ) -> Vec<u8> {
        let write = async {
            from.write_all(sent).await.expect("sent");
            from.flush().await.expect("sent");
        };
        let read = async {
            let (mut received, mut buf) = (Vec::new(), vec![0; READ_BYTES_MIN]);
            while received.len() < sent.len() {
                let len = to.read(&mut buf).await.expect("received");
                assert!(len > 0, "the end came early");
                received.extend_from_slice(&buf[..len]);
            }
            received
        };
        tokio::join!(write, read).1
    }

    #[tokio::test]
    async fn either_side_closes_in_order() {
        let (mut client, mut server) = pair(SUITES[0]).await;
        client.shutdown().await.expect("closed");
        // Without close_notify rustls would say that the end came unexpectedly.
        assert_eq!(server.read(&mut [0; 8]).await.expect("an end in order"), 0);
        let (mut client, mut server) = pair(SUITES[0]).await;
        server.shutdown().await.expect("closed");
        assert_eq!(client.read(&mut vec![0; READ_BYTES_MIN]).await.expect("an end"), 0);
    }

    #[tokio::test]
    async fn a_record_that_was_changed_on_the_way_ends_the_connection() {
        let (mut client, mut server) = pair(SUITES[0]).await;
        let header = [APPLICATION_DATA, 3, 3, 0, 20];
        server.get_mut().0.write_all(&[&header[..], &[7; 20]].concat()).await.expect("sent");
        let error = client.read(&mut vec![0; READ_BYTES_MIN]).await.expect_err("not decrypted");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn one_key_is_not_used_for_ever() {
        let (mut client, _server) = pair(SUITES[0]).await;
        client.sending.sequence = RECORDS_PER_KEY_MAX;
        assert!(client.write_all(b"x").await.is_err());
    }
}
