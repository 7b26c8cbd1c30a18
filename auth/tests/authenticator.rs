//! Who gets in, under which name.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use sotto_auth::{
    Authenticator, Check, Identity, LoadError, PasswordHash, Refusal, TenantName, UserCredentials, UserName,
};
use sotto_model::{TenantId, UserId};
use uuid::Uuid;

const PASSWORD: &[u8] = b"correct horse";
const VERIFIED_AGE_MAX: Duration = Duration::from_mins(5);

static HASH: LazyLock<PasswordHash> = LazyLock::new(|| PasswordHash::hash_password(PASSWORD).expect("hash"));

fn start() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "where made-up time begins")]
    Instant::now()
}

fn user(tenant: u128, number: u128, name: &str) -> UserCredentials {
    UserCredentials {
        tenant: TenantId(Uuid::from_u128(tenant)),
        tenant_name: TenantName::parse(&format!("t{tenant}")).expect("name"),
        user: UserId(Uuid::from_u128(number)),
        user_name: UserName::parse(name).expect("name"),
        password: HASH.clone(),
        scram: None,
        disabled: false,
    }
}

fn with_alice() -> Authenticator {
    let authenticator = Authenticator::new(VERIFIED_AGE_MAX, b"nobody");
    authenticator.upsert(user(1, 10, "alice"));
    authenticator
}

fn sign_in(
    authenticator: &Authenticator,
    name: &str,
    password: &[u8],
    now: Instant,
) -> Result<Identity, Refusal> {
    let client_id = format!("{}/phone", name.split('@').next().expect("a first part"));
    settle(authenticator.check(Some(name), Some(password), &client_id, None, now))
}

fn settle(check: Check) -> Result<Identity, Refusal> {
    match check {
        Check::Accepted(identity) => Ok(identity),
        Check::Verify(check) => check.run(),
        Check::Refused(refusal) => Err(refusal),
    }
}

/// Whether the next sign-in costs a hash.
fn must_hash(authenticator: &Authenticator, name: &str, now: Instant) -> bool {
    matches!(authenticator.check(Some(name), Some(PASSWORD), "alice/phone", None, now), Check::Verify(_))
}

#[test]
fn the_right_password_gives_the_identity() {
    let identity = sign_in(&with_alice(), "alice@t1", PASSWORD, start()).expect("accepted");
    assert_eq!(identity.tenant, TenantId(Uuid::from_u128(1)));
    assert_eq!(identity.user, UserId(Uuid::from_u128(10)));
    assert_eq!(identity.user_name.expect("name").as_str(), "alice");
    assert_eq!(identity.device_name.expect("name").as_str(), "phone");
}

#[test]
fn unknown_disabled_and_wrong_all_cost_a_hash_and_give_one_answer() {
    let authenticator = with_alice();
    authenticator.upsert(UserCredentials { disabled: true, ..user(1, 11, "bob") });
    let now = start();
    let attempts: [(&str, &[u8]); 5] = [
        ("alice@t1", b"wrong password"),
        ("alice@t1", b""),
        ("bob@t1", PASSWORD),
        ("carol@t1", PASSWORD),
        ("alice@t2", PASSWORD),
    ];
    for (name, password) in attempts {
        let client_id = format!("{}/phone", name.split('@').next().expect("a first part"));
        match authenticator.check(Some(name), Some(password), &client_id, None, now) {
            Check::Verify(check) => assert_eq!(check.run(), Err(Refusal::BadCredentials), "{name}"),
            _ => panic!("{name} was answered without a hash"),
        }
    }
}

#[test]
fn a_name_or_password_that_cannot_be_is_refused() {
    let authenticator = with_alice();
    let now = start();
    let check = |name: Option<&str>, password: Option<&[u8]>| {
        settle(authenticator.check(name, password, "alice/phone", None, now))
    };
    for name in ["", "alice", "alice@", "@t1", "Alice@t1", "alice@t1@t1", "alice@t1 ", "alice@t1\0"] {
        assert_eq!(check(Some(name), Some(PASSWORD)), Err(Refusal::BadCredentials), "{name:?}");
    }
    assert_eq!(check(Some("alice@t1"), None), Err(Refusal::BadCredentials));
    assert_eq!(check(Some("alice@t1"), Some(&vec![b'x'; 100_000])), Err(Refusal::BadCredentials));
    assert_eq!(check(None, Some(PASSWORD)), Err(Refusal::NotAuthorized));
}

#[test]
fn a_client_identifier_is_the_user_s_name_and_a_device_s() {
    let authenticator = with_alice();
    let now = start();
    let check =
        |client_id: &str| settle(authenticator.check(Some("alice@t1"), Some(PASSWORD), client_id, None, now));
    assert!(check("alice/tablet-2").is_ok());
    for client_id in [
        "",
        "alice",
        "alice/",
        "/phone",
        "bob/phone",
        "alice/phone/x",
        "alice/Phone",
        "alicephone",
        "alice2/x",
    ] {
        assert_eq!(check(client_id), Err(Refusal::ClientId), "{client_id:?}");
    }
}

#[test]
fn anonymous_clients_are_let_in_only_where_they_are_and_without_a_tenant_s_name() {
    let authenticator = with_alice();
    let now = start();
    let lab = TenantId(Uuid::from_u128(9));
    let identity = settle(authenticator.check(None, None, "anything", Some(lab), now)).expect("accepted");
    assert_eq!((identity.tenant, identity.user), (lab, UserId(Uuid::nil())));
    assert_eq!((identity.user_name, identity.device_name), (None, None));
    let elsewhere = authenticator.check(Some("carol"), Some(b"any"), "anything", Some(lab), now);
    assert_eq!(settle(elsewhere).expect("accepted").tenant, lab);
    let named = authenticator.check(Some("carol@t1"), None, "carol/phone", Some(lab), now);
    assert_eq!(settle(named), Err(Refusal::BadCredentials));
}

#[test]
fn a_password_verified_of_late_is_not_hashed_again() {
    let authenticator = with_alice();
    let now = start();
    assert!(must_hash(&authenticator, "alice@t1", now));
    sign_in(&authenticator, "alice@t1", PASSWORD, now).expect("accepted");
    assert!(!must_hash(&authenticator, "alice@t1", now + VERIFIED_AGE_MAX));
    assert!(must_hash(&authenticator, "alice@t1", now + VERIFIED_AGE_MAX + Duration::from_secs(1)));
    assert_eq!(sign_in(&authenticator, "alice@t1", b"wrong password", now), Err(Refusal::BadCredentials));
}

#[test]
fn a_remembered_password_dies_with_the_stored_one_and_with_the_user() {
    let authenticator = with_alice();
    let now = start();
    sign_in(&authenticator, "alice@t1", PASSWORD, now).expect("accepted");
    authenticator.upsert(UserCredentials { disabled: true, ..user(1, 10, "alice") });
    assert!(must_hash(&authenticator, "alice@t1", now));
    assert_eq!(sign_in(&authenticator, "alice@t1", PASSWORD, now), Err(Refusal::BadCredentials));
    authenticator.remove(TenantId(Uuid::from_u128(1)), UserId(Uuid::from_u128(10)));
    assert_eq!(sign_in(&authenticator, "alice@t1", PASSWORD, now), Err(Refusal::BadCredentials));

    let changed = PasswordHash::hash_password(b"battery staple").expect("hash");
    authenticator.upsert(UserCredentials { password: changed, ..user(1, 10, "alice") });
    assert!(must_hash(&authenticator, "alice@t1", now));
    assert_eq!(sign_in(&authenticator, "alice@t1", PASSWORD, now), Err(Refusal::BadCredentials));
    assert!(sign_in(&authenticator, "alice@t1", b"battery staple", now).is_ok());
}

#[test]
fn a_check_that_was_waiting_does_not_let_in_who_was_removed_meanwhile() {
    let authenticator = with_alice();
    let waiting = |authenticator: &Authenticator| match authenticator.check(
        Some("alice@t1"),
        Some(PASSWORD),
        "alice/phone",
        None,
        start(),
    ) {
        Check::Verify(check) => check,
        _ => panic!("nothing is remembered"),
    };
    let check = waiting(&authenticator);
    authenticator.remove(TenantId(Uuid::from_u128(1)), UserId(Uuid::from_u128(10)));
    assert_eq!(check.run(), Err(Refusal::BadCredentials));
    // Nor does an unknown user's check let in a user made meanwhile.
    let check = waiting(&authenticator);
    authenticator.upsert(user(1, 10, "alice"));
    assert_eq!(check.run(), Err(Refusal::BadCredentials));
}

#[test]
fn a_load_keeps_what_changed_while_it_was_read() {
    let authenticator = with_alice();
    authenticator.upsert(user(1, 12, "carol"));
    let overtaken = authenticator.begin_load();
    let load = authenticator.begin_load();
    authenticator.remove(TenantId(Uuid::from_u128(1)), UserId(Uuid::from_u128(10)));
    assert_eq!(authenticator.replace(overtaken, vec![]), Err(LoadError::Superseded));
    authenticator.replace(load, vec![user(1, 10, "alice"), user(1, 11, "bob")]).expect("the last load");
    let now = start();
    assert!(sign_in(&authenticator, "bob@t1", PASSWORD, now).is_ok());
    for gone in ["alice@t1", "carol@t1"] {
        assert_eq!(sign_in(&authenticator, gone, PASSWORD, now), Err(Refusal::BadCredentials));
    }
}

#[test]
fn a_renamed_user_leaves_the_old_name_and_may_yield_it_to_another() {
    let authenticator = with_alice();
    authenticator.upsert(user(1, 10, "alicia"));
    authenticator.upsert(user(1, 11, "alice"));
    authenticator.upsert(user(1, 10, "alicia"));
    let now = start();
    assert_eq!(
        sign_in(&authenticator, "alice@t1", PASSWORD, now).expect("accepted").user,
        UserId(Uuid::from_u128(11))
    );
    assert!(sign_in(&authenticator, "alicia@t1", PASSWORD, now).is_ok());
}

proptest! {
    #[test]
    fn no_two_users_come_to_one_client_identifier(
        names in prop::collection::btree_set("[ab./-]{1,3}", 2),
        client_id in "[ab./-]{1,8}",
    ) {
        let authenticator = Authenticator::new(VERIFIED_AGE_MAX, b"nobody");
        let now = start();
        let mut let_in = 0;
        for name in &names {
            let check =
                authenticator.check(Some(&format!("{name}@t1")), Some(PASSWORD), &client_id, None, now);
            // Whether the password is right is not the matter here, so nothing is hashed.
            let_in += u32::from(matches!(check, Check::Verify(_)));
        }
        prop_assert!(let_in <= 1);
    }

    #[test]
    fn nothing_that_is_sent_makes_a_check_panic(
        name in ".{0,200}",
        password in prop::collection::vec(any::<u8>(), 0..2000),
        client_id in ".{0,300}",
    ) {
        let authenticator = Authenticator::new(VERIFIED_AGE_MAX, b"nobody");
        let check = authenticator.check(Some(&name), Some(&password), &client_id, None, start());
        prop_assert!(!matches!(check, Check::Accepted(_)));
    }
}
