//! Signing in by SCRAM-SHA-256.

use std::sync::LazyLock;

use super::*;
use crate::testing::ScramClient;

const PASSWORD: &str = "correct horse";

static SCRAM: LazyLock<Arc<ScramCredentials>> =
    LazyLock::new(|| Arc::new(ScramCredentials::derive(PASSWORD).expect("credentials")));

fn user(name: &str) -> UserCredentials {
    UserCredentials {
        tenant: TenantId(Uuid::from_u128(1)),
        tenant_name: TenantName::parse("clinic").expect("name"),
        user: UserId(Uuid::from_u128(2)),
        user_name: UserName::parse(name).expect("name"),
        password: PasswordHash::of_nobody(),
        scram: Some(SCRAM.clone()),
        disabled: false,
    }
}

fn with_alice() -> Authenticator {
    let authenticator = Authenticator::new(Duration::ZERO, b"key");
    authenticator.upsert(user("alice"));
    authenticator
}

/// What happens between the two messages.
type Meanwhile = fn(&Authenticator);

fn sign_in(
    username: &str,
    password: &str,
    client_id: &str,
    meanwhile: Meanwhile,
) -> Result<Identity, Refusal> {
    let authenticator = with_alice();
    let client = ScramClient::new(username, password, "nonce");
    let (login, server_first) = authenticator.begin_scram(&client.client_first(), &ServerNonce::draw())?;
    meanwhile(&authenticator);
    let answer = client.answer(&server_first);
    let (identity, server_final) = login.finish(&answer.client_final, client_id)?;
    // The server has shown itself too.
    assert_eq!(server_final, answer.server_final);
    Ok(identity)
}

#[test]
fn the_right_password_gives_the_identity() {
    let identity = sign_in("alice@clinic", PASSWORD, "alice/phone", |_| {}).expect("accepted");
    assert_eq!((identity.tenant, identity.user), (TenantId(Uuid::from_u128(1)), UserId(Uuid::from_u128(2))));
    assert_eq!(identity.device_name.expect("name").as_str(), "phone");
}

#[test]
fn a_wrong_password_and_a_name_that_nobody_has_are_told_the_same() {
    for (username, password) in [
        ("alice@clinic", "wrong horse"),
        ("bob@clinic", PASSWORD),
        ("alice@nowhere", PASSWORD),
        ("alice", PASSWORD),
        ("a,b=c@clinic", PASSWORD),
    ] {
        let refused = sign_in(username, password, "alice/phone", |_| {});
        assert_eq!(refused.err(), Some(Refusal::BadCredentials), "{username}");
    }
    let authenticator = with_alice();
    let first = |name| {
        let client = ScramClient::new(name, PASSWORD, "nonce");
        let (_, first) = authenticator.begin_scram(&client.client_first(), &ServerNonce::draw()).ok()?;
        let first = String::from_utf8(first).ok()?;
        Some((first.split(",s=").nth(1)?.to_owned(), first.len()))
    };
    let (known, unknown) = (first("alice@clinic").expect("begun"), first("bob@clinic").expect("begun"));
    assert_eq!((known.1, &known.0[24..]), (unknown.1, &unknown.0[24..]), "but for nonce and salt");
    assert_eq!(first("bob@clinic"), Some(unknown), "the salt stays");
}

#[test]
fn whoever_is_gone_or_changed_meanwhile_is_not_let_in() {
    let changes: [Meanwhile; 3] = [
        |users| users.remove(TenantId(Uuid::from_u128(1)), UserId(Uuid::from_u128(2))),
        |users| users.upsert(UserCredentials { disabled: true, ..user("alice") }),
        |users| {
            let other = ScramCredentials::derive("another horse").expect("credentials");
            users.upsert(UserCredentials { scram: Some(Arc::new(other)), ..user("alice") });
        },
    ];
    for change in changes {
        let refused = sign_in("alice@clinic", PASSWORD, "alice/phone", change);
        assert_eq!(refused.err(), Some(Refusal::BadCredentials));
    }
}

#[test]
fn a_client_identifier_must_be_one_of_the_user_s() {
    for client_id in ["bob/phone", "alice", "alice/", "alicephone", ""] {
        let refused = sign_in("alice@clinic", PASSWORD, client_id, |_| {});
        assert_eq!(refused.err(), Some(Refusal::ClientId), "{client_id}");
    }
}

#[test]
fn a_user_without_credentials_is_refused_the_method() {
    let authenticator = with_alice();
    authenticator.upsert(UserCredentials { scram: None, ..user("alice") });
    let client = ScramClient::new("alice@clinic", PASSWORD, "nonce");
    let refused = authenticator.begin_scram(&client.client_first(), &ServerNonce::draw());
    assert_eq!(refused.err(), Some(Refusal::Method));
}

#[test]
fn what_was_heard_of_one_exchange_opens_no_other() {
    let authenticator = with_alice();
    let client = ScramClient::new("alice@clinic", PASSWORD, "nonce");
    let begin = || authenticator.begin_scram(&client.client_first(), &ServerNonce::draw()).expect("begun");
    let (login, server_first) = begin();
    let heard = client.answer(&server_first).client_final;
    assert!(login.finish(&heard, "alice/phone").is_ok());
    assert_eq!(begin().0.finish(&heard, "alice/phone").err(), Some(Refusal::NotAuthorized));
}
