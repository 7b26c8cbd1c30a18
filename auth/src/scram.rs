//! SCRAM-SHA-256 (RFC 5802, RFC 7677), the server's side, sans-io.
//!
//! ```text
//! client-first   n,,n=alice@clinic,r=<client nonce>
//! server-first   r=<client nonce><server nonce>,s=<salt>,i=<iterations>
//! client-final   c=biws,r=<both nonces>,p=<proof>
//! server-final   v=<server signature>
//! ```
//!
//! Channel binding is not offered, so `p=` is refused, and what was bound must be the header itself. A name
//! that nobody has is answered like any other, with a salt of its own that never changes; it fails at the
//! proof, as a wrong password does.

use std::sync::Arc;

use aws_lc_rs::{constant_time, digest, hmac, pbkdf2};
use base64ct::{Base64, Encoding};
use zeroize::Zeroizing;

use crate::limits::{
    SCRAM_CREDENTIALS_BYTES_MAX, SCRAM_ITERATIONS, SCRAM_ITERATIONS_MAX, SCRAM_ITERATIONS_MIN,
    SCRAM_MESSAGE_BYTES_MAX,
};

/// The method's name on the wire.
pub const SCRAM_SHA_256: &str = "SCRAM-SHA-256";

const KEY_BYTES: usize = 32;
const SALT_BYTES: usize = 16;
const SERVER_NONCE_BYTES: usize = 18;
const STORED_PREFIX: &str = "SCRAM-SHA-256$";

/// What is kept of a password for this method: enough to check a proof, not enough to make one.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramCredentials {
    salt: [u8; SALT_BYTES],
    iterations: u32,
    stored_key: [u8; KEY_BYTES],
    server_key: [u8; KEY_BYTES],
}

/// The server's part of an exchange's nonce.
pub struct ServerNonce([u8; SERVER_NONCE_BYTES]);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    #[error("not a message of SCRAM-SHA-256 that could stand here")]
    Malformed,
    #[error("channel binding is not offered")]
    ChannelBinding,
    #[error("the nonce is not the one of this exchange")]
    Nonce,
    #[error("the proof is wrong")]
    Proof,
    /// Not text that can be a password everywhere, or no PHC-like string.
    #[error("credentials are not acceptable")]
    Credentials,
}

/// A client-first message, read.
pub struct ClientFirst {
    /// The authentication identity, unescaped.
    pub username: String,
    nonce: String,
    /// From the name on: what both sides sign.
    bare: String,
    /// `n,,` or `y,,`, with the authorization identity where there is one.
    header: String,
}

/// An exchange that waits for its client-final message.
pub struct ScramExchange {
    credentials: Arc<ScramCredentials>,
    nonce: String,
    header: String,
    /// client-first-bare, server-first.
    signed: String,
}

impl ScramCredentials {
    /// Of a password that is being set, under a salt of its own. Takes some tens of milliseconds.
    pub fn derive(password: &str) -> Result<Self, ScramError> {
        Self::with_iterations(password, drawn(), SCRAM_ITERATIONS)
    }

    fn with_iterations(password: &str, salt: [u8; SALT_BYTES], iterations: u32) -> Result<Self, ScramError> {
        // RFC 4013: what a client makes of the password before it hashes it.
        let prepared = stringprep::saslprep(password).ok().filter(|prepared| !prepared.is_empty());
        let prepared = prepared.ok_or(ScramError::Credentials)?;
        let prepared = Zeroizing::new(prepared.into_owned());
        let mut salted = Zeroizing::new([0; KEY_BYTES]);
        let rounds = std::num::NonZeroU32::new(iterations).ok_or(ScramError::Credentials)?;
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &salt, prepared.as_bytes(), salted.as_mut());
        let client_key = Zeroizing::new(mac(salted.as_ref(), b"Client Key"));
        Ok(Self {
            salt,
            iterations,
            stored_key: hash(client_key.as_ref()),
            server_key: mac(salted.as_ref(), b"Server Key"),
        })
    }

    /// For a name that nobody has. The same key gives the same name the same salt, as a stored one would be.
    pub(crate) fn of_nobody(key: &hmac::Key, username: &str) -> Self {
        let derived = hmac::sign(key, username.as_bytes());
        let mut salt = [0; SALT_BYTES];
        salt.copy_from_slice(&derived.as_ref()[..SALT_BYTES]);
        // No password leads to keys that were not made from one.
        let keys = hash(derived.as_ref());
        Self { salt, iterations: SCRAM_ITERATIONS, stored_key: keys, server_key: keys }
    }

    /// For keeping in the store; never for a log.
    /// `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`, in base64.
    pub fn to_stored(&self) -> String {
        format!(
            "{STORED_PREFIX}{}:{}${}:{}",
            self.iterations,
            Base64::encode_string(&self.salt),
            Base64::encode_string(&self.stored_key),
            Base64::encode_string(&self.server_key),
        )
    }

    /// Reads what [`Self::to_stored`] gave.
    pub fn parse(stored: &str) -> Result<Self, ScramError> {
        let parsed = || {
            let rest = stored.strip_prefix(STORED_PREFIX)?;
            let (cost, keys) = rest.split_once('$')?;
            let (iterations, salt) = cost.split_once(':')?;
            let (stored_key, server_key) = keys.split_once(':')?;
            Some(Self {
                salt: fixed(salt)?,
                iterations: iterations
                    .parse()
                    .ok()
                    .filter(|count| (SCRAM_ITERATIONS_MIN..=SCRAM_ITERATIONS_MAX).contains(count))?,
                stored_key: fixed(stored_key)?,
                server_key: fixed(server_key)?,
            })
        };
        let short = stored.len() <= SCRAM_CREDENTIALS_BYTES_MAX;
        parsed().filter(|_| short).ok_or(ScramError::Credentials)
    }

    /// `ClientSignature XOR ClientProof` must be a key of which `stored_key` is the hash.
    fn accepts(&self, proof: &[u8; KEY_BYTES], signed: &[u8]) -> bool {
        let signature = mac(&self.stored_key, signed);
        let mut client_key = Zeroizing::new([0; KEY_BYTES]);
        for (byte, (one, other)) in client_key.iter_mut().zip(signature.iter().zip(proof)) {
            *byte = one ^ other;
        }
        constant_time::verify_slices_are_equal(&hash(client_key.as_ref()), &self.stored_key).is_ok()
    }
}

impl ServerNonce {
    pub fn draw() -> Self {
        Self(drawn())
    }
}

impl ClientFirst {
    pub fn parse(message: &[u8]) -> Result<Self, ScramError> {
        let message = text(message)?;
        let mut parts = message.splitn(3, ',');
        let (Some(binding), Some(authorization), Some(bare)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(ScramError::Malformed);
        };
        match binding {
            "n" | "y" => {}
            binding if binding.starts_with("p=") => return Err(ScramError::ChannelBinding),
            _ => return Err(ScramError::Malformed),
        }
        let mut attributes = bare.split(',');
        // `m=` in this place is reserved, and must be refused where it is not known.
        let username = value(attributes.next(), "n=")?;
        let nonce = value(attributes.next(), "r=")?;
        if !nonce.bytes().all(|byte| byte.is_ascii_graphic()) || !attributes.all(is_extension) {
            return Err(ScramError::Malformed);
        }
        let username_sent = username;
        let username = unescape(username_sent)?;
        // Nobody acts for somebody else.
        let for_oneself = authorization.is_empty() || authorization.strip_prefix("a=") == Some(username_sent);
        if !for_oneself {
            return Err(ScramError::Malformed);
        }
        Ok(Self {
            username,
            nonce: nonce.to_owned(),
            bare: bare.to_owned(),
            header: format!("{binding},{authorization},"),
        })
    }
}

impl ScramExchange {
    /// Also returns the server-first message.
    pub(crate) fn begin(
        client: ClientFirst,
        credentials: Arc<ScramCredentials>,
        nonce: &ServerNonce,
    ) -> (Self, Vec<u8>) {
        let nonce = format!("{}{}", client.nonce, Base64::encode_string(&nonce.0));
        Self::begin_with(client, credentials, nonce)
    }

    fn begin_with(client: ClientFirst, credentials: Arc<ScramCredentials>, nonce: String) -> (Self, Vec<u8>) {
        let salt = Base64::encode_string(&credentials.salt);
        let server_first = format!("r={nonce},s={salt},i={}", credentials.iterations);
        let signed = format!("{},{server_first}", client.bare);
        (Self { credentials, nonce, header: client.header, signed }, server_first.into_bytes())
    }

    /// Returns the credentials that the proof was made for, and the server-final message.
    pub(crate) fn finish(self, client_final: &[u8]) -> Result<(Arc<ScramCredentials>, Vec<u8>), ScramError> {
        let message = text(client_final)?;
        let (without_proof, proof) = message.rsplit_once(",p=").ok_or(ScramError::Malformed)?;
        let proof: [u8; KEY_BYTES] = fixed(proof).ok_or(ScramError::Malformed)?;
        let mut attributes = without_proof.split(',');
        let bound = value(attributes.next(), "c=")?;
        let nonce = value(attributes.next(), "r=")?;
        if !attributes.all(is_extension) {
            return Err(ScramError::Malformed);
        }
        if Base64::encode_string(self.header.as_bytes()) != bound {
            return Err(ScramError::ChannelBinding);
        }
        if nonce != self.nonce {
            return Err(ScramError::Nonce);
        }
        let signed = format!("{},{without_proof}", self.signed);
        if !self.credentials.accepts(&proof, signed.as_bytes()) {
            return Err(ScramError::Proof);
        }
        let signature = mac(&self.credentials.server_key, signed.as_bytes());
        let server_final = format!("v={}", Base64::encode_string(&signature));
        Ok((self.credentials, server_final.into_bytes()))
    }
}

fn text(message: &[u8]) -> Result<&str, ScramError> {
    if message.len() > SCRAM_MESSAGE_BYTES_MAX || message.contains(&0) {
        return Err(ScramError::Malformed);
    }
    std::str::from_utf8(message).map_err(|_| ScramError::Malformed)
}

/// Of an attribute that must stand here, and must not be empty.
fn value<'m>(attribute: Option<&'m str>, name: &str) -> Result<&'m str, ScramError> {
    let value = attribute.and_then(|attribute| attribute.strip_prefix(name));
    value.filter(|value| !value.is_empty()).ok_or(ScramError::Malformed)
}

/// Extensions that are not known are passed over.
fn is_extension(attribute: &str) -> bool {
    let mut letters = attribute.chars();
    letters.next().is_some_and(|name| name.is_ascii_alphabetic() && name != 'm')
        && letters.next() == Some('=')
        && letters.next().is_some()
}

/// `=2C` is a comma, `=3D` an equals sign, and no other `=` may be there.
fn unescape(name: &str) -> Result<String, ScramError> {
    let mut parts = name.split('=');
    let mut unescaped = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (letter, rest) = match (part.strip_prefix("2C"), part.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            (None, None) => return Err(ScramError::Malformed),
        };
        unescaped.push(letter);
        unescaped.push_str(rest);
    }
    Ok(unescaped)
}

fn fixed<const N: usize>(encoded: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let decoded = Base64::decode(encoded, &mut bytes).ok()?.len();
    (decoded == N).then_some(bytes)
}

fn drawn<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system's random source works");
    bytes
}

fn mac(key: &[u8], message: &[u8]) -> [u8; KEY_BYTES] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
    tag.as_ref().try_into().expect("HMAC-SHA256 gives 32 bytes")
}

fn hash(message: &[u8]) -> [u8; KEY_BYTES] {
    digest::digest(&digest::SHA256, message).as_ref().try_into().expect("SHA-256 gives 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CLIENT_FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const NONCE: &str = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const CLIENT_FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    fn of_the_rfc() -> Arc<ScramCredentials> {
        let salt = fixed("W22ZaJ0SNY7soEsUEjb6gQ==").expect("16 bytes");
        Arc::new(ScramCredentials::with_iterations("pencil", salt, 4096).expect("credentials"))
    }

    fn begun(client_first: &str) -> (ScramExchange, String) {
        let client = ClientFirst::parse(client_first.as_bytes()).expect("client-first");
        let (exchange, first) = ScramExchange::begin_with(client, of_the_rfc(), NONCE.to_owned());
        (exchange, String::from_utf8(first).expect("UTF-8"))
    }

    fn finished(client_first: &str, client_final: &str) -> Result<String, ScramError> {
        let finished = begun(client_first).0.finish(client_final.as_bytes());
        finished.map(|(_, last)| String::from_utf8(last).expect("UTF-8"))
    }

    #[test]
    fn the_exchange_of_rfc_7677_is_what_it_says() {
        let (exchange, first) = begun(CLIENT_FIRST);
        assert_eq!(first, format!("r={NONCE},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"));
        let (_, last) = exchange.finish(CLIENT_FINAL.as_bytes()).expect("accepted");
        assert_eq!(last, b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn a_proof_holds_for_its_own_exchange_and_password_alone() {
        let last = |from: &str, to: &str| finished(CLIENT_FIRST, &CLIENT_FINAL.replace(from, to));
        assert_eq!(last("p=dHz", "p=eHz"), Err(ScramError::Proof));
        assert_eq!(last("$k0", "$k1"), Err(ScramError::Nonce));
        assert_eq!(last("c=biws", "c=eSws"), Err(ScramError::ChannelBinding));
        assert_eq!(last(",p=", ",x=y,p="), Err(ScramError::Proof));
        assert_eq!(last(",p=", ",m=y,p="), Err(ScramError::Malformed));
        assert_eq!(last("ndVQ=", "ndVQ"), Err(ScramError::Malformed));
        assert_eq!(last("c=biws,", ""), Err(ScramError::Malformed));
        assert_eq!(finished(CLIENT_FIRST, "c=biws,r=x"), Err(ScramError::Malformed));
        // Signed with another name.
        assert_eq!(finished("n,,n=other,r=rOprNGfwEbeRWgbNEkqO", CLIENT_FINAL), Err(ScramError::Proof));
    }

    #[test]
    fn a_first_message_says_one_s_own_name_and_binds_nothing() {
        let parse = |message: &str| ClientFirst::parse(message.as_bytes()).map(|first| first.username);
        assert_eq!(parse(CLIENT_FIRST).as_deref(), Ok("user"));
        assert_eq!(parse("y,,n=a=2Cb=3Dc,r=x").as_deref(), Ok("a,b=c"));
        assert_eq!(parse("n,a=user,n=user,r=x,e=1").as_deref(), Ok("user"));
        assert_eq!(parse("p=tls-exporter,,n=user,r=x"), Err(ScramError::ChannelBinding));
        for bad in [
            "",
            "n,,",
            "n,,n=user",
            "n,,n=,r=x",
            "n,,n=user,r=",
            "n,,r=x,n=user",
            "n,,m=1,n=user,r=x",
            "n,,n=user,r=x,m=1",
            "n,,n=user,r=x,",
            "n,,n=us=er,r=x",
            "n,,n=user,r=x y",
            "n,,n=user,r=x\u{e9}",
            "n,,n=us\0er,r=x",
            "n,a=other,n=user,r=x",
            "n,other,n=user,r=x",
            "q,,n=user,r=x",
        ] {
            assert_eq!(parse(bad), Err(ScramError::Malformed), "{bad}");
        }
        let long = format!("n,,n={},r=x", "a".repeat(SCRAM_MESSAGE_BYTES_MAX));
        assert_eq!(parse(&long), Err(ScramError::Malformed));
        assert_eq!(ClientFirst::parse(b"n,,n=\xFF,r=x").err(), Some(ScramError::Malformed));
    }

    #[test]
    fn passwords_are_prepared_as_clients_prepare_them() {
        let derive = |password: &str| ScramCredentials::with_iterations(password, [7; 16], 4096);
        // RFC 4013: a soft hyphen is left out, compatibility forms are one, control characters are refused.
        assert!(derive("I\u{ad}X") == derive("IX") && derive("\u{2168}") == derive("IX"));
        assert!(derive("IX") != derive("ix"));
        assert!(derive("a\u{7}b") == Err(ScramError::Credentials));
        assert!(derive("\u{ad}\u{ad}") == Err(ScramError::Credentials));
    }

    #[test]
    fn credentials_are_read_as_they_are_stored() {
        let credentials = ScramCredentials::derive("correct horse").expect("credentials");
        let stored = credentials.to_stored();
        assert!(ScramCredentials::parse(&stored) == Ok(credentials));
        for bad in [
            "",
            "SCRAM-SHA-1$4096:AAAA$AAAA:AAAA",
            &stored.replace(&format!("${SCRAM_ITERATIONS}:"), "$1:"),
            &stored.replace(&format!("${SCRAM_ITERATIONS}:"), "$4000000000:"),
            &stored[..stored.len() - 2],
            &format!("{stored}{}", " ".repeat(SCRAM_CREDENTIALS_BYTES_MAX)),
        ] {
            assert!(ScramCredentials::parse(bad) == Err(ScramError::Credentials), "{bad}");
        }
    }

    #[test]
    fn a_name_that_nobody_has_keeps_its_salt() {
        let nobody = |key: &[u8], name: &str| {
            ScramCredentials::of_nobody(&hmac::Key::new(hmac::HMAC_SHA256, key), name).salt
        };
        assert_eq!(nobody(b"key", "x@y"), nobody(b"key", "x@y"));
        assert_ne!(nobody(b"key", "x@y"), nobody(b"key", "z@y"));
        assert_ne!(nobody(b"key", "x@y"), nobody(b"other", "x@y"));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(message in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = ClientFirst::parse(&message);
            prop_assert!(begun(CLIENT_FIRST).0.finish(&message).is_err());
        }

        #[test]
        fn no_other_bytes_are_a_proof(at in 0..CLIENT_FINAL.len(), byte in any::<u8>()) {
            let mut message = CLIENT_FINAL.as_bytes().to_vec();
            prop_assume!(message[at] != byte);
            message[at] = byte;
            prop_assert!(begun(CLIENT_FIRST).0.finish(&message).is_err());
        }
    }
}
