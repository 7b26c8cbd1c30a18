//! The client's side of SCRAM-SHA-256, for tests here and in other crates.

use aws_lc_rs::{digest, hmac, pbkdf2};
use base64ct::{Base64, Encoding};

/// One client, with one nonce.
pub struct ScramClient {
    bare: String,
    password: String,
}

/// What a client sends last, and what a server that knows the password must answer.
pub struct ScramAnswer {
    pub client_final: Vec<u8>,
    pub server_final: Vec<u8>,
}

impl ScramClient {
    pub fn new(username: &str, password: &str, nonce: &str) -> Self {
        let username = username.replace('=', "=3D").replace(',', "=2C");
        Self { bare: format!("n={username},r={nonce}"), password: password.to_owned() }
    }

    pub fn client_first(&self) -> Vec<u8> {
        format!("n,,{}", self.bare).into_bytes()
    }

    /// # Panics
    /// On a server-first message that is not one.
    pub fn answer(&self, server_first: &[u8]) -> ScramAnswer {
        let server_first = std::str::from_utf8(server_first).expect("UTF-8");
        let mut attributes = server_first.split(',');
        let mut attribute = |name| attributes.next().and_then(|text| text.strip_prefix(name)).expect(name);
        let (nonce, salt, iterations) = (attribute("r="), attribute("s="), attribute("i="));
        let salt = Base64::decode_vec(salt).expect("base64");
        let mut salted = [0; 32];
        let rounds = iterations.parse().expect("a number, not zero");
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &salt, self.password.as_bytes(), &mut salted);
        let client_key = mac(&salted, "Client Key");
        let stored_key = digest::digest(&digest::SHA256, &client_key);
        let without_proof = format!("c=biws,r={nonce}");
        let signed = format!("{},{server_first},{without_proof}", self.bare);
        let signature = mac(stored_key.as_ref(), &signed);
        let proof: Vec<u8> = client_key.iter().zip(&signature).map(|(one, other)| one ^ other).collect();
        let verifier = mac(&mac(&salted, "Server Key"), &signed);
        ScramAnswer {
            client_final: format!("{without_proof},p={}", Base64::encode_string(&proof)).into_bytes(),
            server_final: format!("v={}", Base64::encode_string(&verifier)).into_bytes(),
        }
    }
}

fn mac(key: &[u8], message: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message.as_bytes()).as_ref().to_vec()
}
