//! TLS 1.3 cipher suites that keep a raw key and IV per direction and expand them for each record.
//!
//! An expanded AES-GCM context is some 600 bytes a direction, for as long as the connection lives; expanding
//! one costs some tens of nanoseconds a record. An idle phone sends a record a minute.

use aws_lc_rs::aead;
use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, InboundPlainMessage, Iv, MessageDecrypter, MessageEncrypter, Nonce,
    OutboundOpaqueMessage, OutboundPlainMessage, PrefixedPayload, Tls13AeadAlgorithm,
    UnsupportedOperationError, make_tls13_aad,
};
use rustls::{
    CipherSuite, ConnectionTrafficSecrets, ContentType, Error, ProtocolVersion, SupportedCipherSuite,
    Tls13CipherSuite,
};
use zeroize::Zeroizing;

/// Bytes that TLS 1.3 adds to a plaintext: its content type and the tag.
const OVERHEAD_BYTES: usize = 1 + TAG_BYTES;
const TAG_BYTES: usize = 16;

/// Replaces the AES-GCM suites of TLS 1.3 by their lean forms; every other suite stays as it is.
pub(super) fn lean(suite: SupportedCipherSuite) -> SupportedCipherSuite {
    match suite {
        SupportedCipherSuite::Tls13(full) if full.common.suite == CipherSuite::TLS13_AES_128_GCM_SHA256 => {
            SupportedCipherSuite::Tls13(leak::<16>(full, &aead::AES_128_GCM))
        }
        SupportedCipherSuite::Tls13(full) if full.common.suite == CipherSuite::TLS13_AES_256_GCM_SHA384 => {
            SupportedCipherSuite::Tls13(leak::<32>(full, &aead::AES_256_GCM))
        }
        other => other,
    }
}

/// rustls wants suites that live as long as the program; this is called once at start.
fn leak<const KEY_BYTES: usize>(
    full: &'static Tls13CipherSuite,
    algorithm: &'static aead::Algorithm,
) -> &'static Tls13CipherSuite {
    let lean = Box::leak(Box::new(LeanAead::<KEY_BYTES> { algorithm, full: full.aead_alg }));
    Box::leak(Box::new(Tls13CipherSuite {
        common: rustls::crypto::CipherSuiteCommon {
            suite: full.common.suite,
            hash_provider: full.common.hash_provider,
            confidentiality_limit: full.common.confidentiality_limit,
        },
        hkdf_provider: full.hkdf_provider,
        aead_alg: lean,
        quic: None,
    }))
}

struct LeanAead<const KEY_BYTES: usize> {
    algorithm: &'static aead::Algorithm,
    full: &'static dyn Tls13AeadAlgorithm,
}

struct LeanKey<const KEY_BYTES: usize> {
    algorithm: &'static aead::Algorithm,
    key: Zeroizing<[u8; KEY_BYTES]>,
    iv: Iv,
}

impl<const KEY_BYTES: usize> LeanAead<KEY_BYTES> {
    fn key(&self, key: &AeadKey, iv: Iv) -> LeanKey<KEY_BYTES> {
        let key = key.as_ref().try_into().expect("rustls derives keys of key_len bytes");
        LeanKey { algorithm: self.algorithm, key: Zeroizing::new(key), iv }
    }
}

impl<const KEY_BYTES: usize> Tls13AeadAlgorithm for LeanAead<KEY_BYTES> {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        Box::new(self.key(&key, iv))
    }

    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        Box::new(self.key(&key, iv))
    }

    fn key_len(&self) -> usize {
        KEY_BYTES
    }

    fn extract_keys(
        &self,
        key: AeadKey,
        iv: Iv,
    ) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        self.full.extract_keys(key, iv)
    }
}

impl<const KEY_BYTES: usize> LeanKey<KEY_BYTES> {
    fn expand(&self) -> Result<aead::LessSafeKey, Error> {
        aead::UnboundKey::new(self.algorithm, &*self.key)
            .map(aead::LessSafeKey::new)
            .map_err(|_| Error::General("expand a record key".into()))
    }

    fn nonce(&self, seq: u64) -> aead::Nonce {
        aead::Nonce::assume_unique_for_key(Nonce::new(&self.iv, seq).0)
    }
}

impl<const KEY_BYTES: usize> MessageEncrypter for LeanKey<KEY_BYTES> {
    fn encrypt(
        &mut self,
        message: OutboundPlainMessage<'_>,
        seq: u64,
    ) -> Result<OutboundOpaqueMessage, Error> {
        let total = self.encrypted_payload_len(message.payload.len());
        let mut payload = PrefixedPayload::with_capacity(total);
        payload.extend_from_chunks(&message.payload);
        payload.extend_from_slice(&[u8::from(message.typ)]);
        let aad = aead::Aad::from(make_tls13_aad(total));
        let tag = self
            .expand()?
            .seal_in_place_separate_tag(self.nonce(seq), aad, payload.as_mut())
            .map_err(|_| Error::EncryptError)?;
        payload.extend_from_slice(tag.as_ref());
        // The outer record claims TLS 1.2 application data. RFC 8446, 5.2
        Ok(OutboundOpaqueMessage::new(ContentType::ApplicationData, ProtocolVersion::TLSv1_2, payload))
    }

    fn encrypted_payload_len(&self, payload_len: usize) -> usize {
        payload_len + OVERHEAD_BYTES
    }
}

impl<const KEY_BYTES: usize> MessageDecrypter for LeanKey<KEY_BYTES> {
    fn decrypt<'a>(
        &mut self,
        mut message: InboundOpaqueMessage<'a>,
        seq: u64,
    ) -> Result<InboundPlainMessage<'a>, Error> {
        let payload = &mut message.payload;
        if payload.len() < OVERHEAD_BYTES {
            return Err(Error::DecryptError);
        }
        let aad = aead::Aad::from(make_tls13_aad(payload.len()));
        let plain_len = self
            .expand()?
            .open_in_place(self.nonce(seq), aad, payload)
            .map_err(|_| Error::DecryptError)?
            .len();
        payload.truncate(plain_len);
        message.into_tls13_unpadded_message()
    }
}
