//! Access rules against a reference that enumerates topics, and beside memberships.

use proptest::prelude::*;
use sotto_auth::{Policy, PolicySnapshot};
use sotto_model::{
    AclAction, AclEffect, AclFilter, AclRule, ClientId, ConversationId, Offset, Principal, TenantId,
    TopicFilter, TopicName, TopicPolicy, UserId,
};
use uuid::Uuid;

const TENANT: TenantId = TenantId(Uuid::from_u128(1));
const USER: UserId = UserId(Uuid::from_u128(2));

fn principal(client_id: &str) -> Principal {
    Principal {
        tenant: TENANT,
        user: USER,
        device: None,
        client_id: ClientId::parse(client_id).expect("client id"),
        topics: TopicPolicy::Membership,
    }
}

fn rule(effect: AclEffect, action: AclAction, filter: &str) -> AclRule {
    AclRule { effect, action, filter: AclFilter::parse(filter).expect("filter") }
}

/// `+ publish a/b`, `- all a/#`: allow and deny.
fn rules(texts: &[&str]) -> Vec<AclRule> {
    let parse = |text: &&str| {
        let words: Vec<&str> = text.split(' ').collect();
        let effect = if words[0] == "+" { AclEffect::Allow } else { AclEffect::Deny };
        rule(effect, words[1].parse().expect("action"), words[2])
    };
    texts.iter().map(parse).collect()
}

fn policy(topics: TopicPolicy, rules: Vec<AclRule>) -> Policy {
    let policy = Policy::new();
    replace(&policy, topics, rules);
    policy
}

fn replace(policy: &Policy, topics: TopicPolicy, rules: Vec<AclRule>) {
    let snapshot = PolicySnapshot {
        tenants: vec![(TENANT, topics)],
        acl_rules: rules.into_iter().map(|rule| (TENANT, rule)).collect(),
        ..PolicySnapshot::default()
    };
    policy.replace(policy.begin_load(), snapshot).expect("the only load");
}

fn name(raw: &str) -> TopicName {
    TopicName::parse(raw).expect("topic name")
}

fn filter(raw: &str) -> TopicFilter {
    TopicFilter::parse(raw).expect("topic filter")
}

fn may_publish(policy: &Policy, client_id: &str, topic: &str) -> bool {
    policy.permit_publish(&principal(client_id), &name(topic)).is_ok()
}

fn may_subscribe(policy: &Policy, client_id: &str, topics: &str) -> bool {
    policy.permit_subscribe(&principal(client_id), &filter(topics)).is_ok()
}

fn may_receive(policy: &Policy, client_id: &str, topic: &str) -> bool {
    policy.may_receive(&principal(client_id), &name(topic), Offset(1))
}

#[test]
fn the_first_rule_that_matches_decides() {
    let rules = rules(&["- publish a/secret", "+ publish a/+", "- publish a/late"]);
    for topics in [TopicPolicy::Membership, TopicPolicy::Open] {
        let policy = policy(topics, rules.clone());
        assert!(!may_publish(&policy, "x", "a/secret"));
        assert!(may_publish(&policy, "x", "a/late"));
        assert_eq!(may_publish(&policy, "x", "b"), topics == TopicPolicy::Open);
    }
}

#[test]
fn a_rule_speaks_of_its_action_alone() {
    let policy = policy(TopicPolicy::Membership, rules(&["+ publish p", "+ subscribe s", "+ all b"]));
    for (topic, publish, subscribe) in [("p", true, false), ("s", false, true), ("b", true, true)] {
        assert_eq!(may_publish(&policy, "x", topic), publish);
        assert_eq!(may_subscribe(&policy, "x", topic), subscribe);
        assert_eq!(may_receive(&policy, "x", topic), subscribe);
    }
}

#[test]
fn a_subscription_that_is_denied_in_part_is_granted_and_that_part_withheld() {
    let policy = policy(TopicPolicy::Membership, rules(&["- subscribe a/secret/#", "+ subscribe a/#"]));
    assert!(may_subscribe(&policy, "x", "a/#"));
    assert!(may_subscribe(&policy, "x", "a/+/x"));
    assert!(!may_subscribe(&policy, "x", "a/secret/+"));
    assert!(!may_subscribe(&policy, "x", "#"));
    assert!(may_receive(&policy, "x", "a/b"));
    assert!(!may_receive(&policy, "x", "a/secret"));
    assert!(!may_receive(&policy, "x", "a/secret/x"));
}

#[test]
fn a_share_is_judged_by_its_filter_and_refused_where_members_are_concerned() {
    let guarded = policy(TopicPolicy::Membership, rules(&["+ all #"]));
    assert!(may_subscribe(&guarded, "x", "$share/g/jobs/+"));
    let conversation = ConversationId(Uuid::from_u128(3));
    guarded.add_member(TENANT, conversation, USER, Offset(0));
    for shared in ["#", "+/x", "c/+/m", "u/x", "c", &format!("c/{conversation}/m"), &format!("u/{USER}/x")] {
        assert!(!may_subscribe(&guarded, "x", &format!("$share/g/{shared}")), "{shared}");
    }
    let open = policy(TopicPolicy::Open, rules(&["- subscribe jobs/#"]));
    assert!(!may_subscribe(&open, "x", "$share/g/jobs/+"));
    assert!(may_subscribe(&open, "x", "$share/g/#"));
}

#[test]
fn rules_say_nothing_about_conversations_and_inboxes() {
    let (conversation, other) = (ConversationId(Uuid::from_u128(3)), Uuid::from_u128(9));
    let open_to_all = policy(TopicPolicy::Membership, rules(&["+ all #"]));
    let closed_to_all = policy(TopicPolicy::Membership, rules(&["- all #"]));
    for policy in [&open_to_all, &closed_to_all] {
        policy.add_member(TENANT, conversation, USER, Offset(0));
        let (mine, foreign) = (format!("c/{conversation}/m"), format!("c/{other}/m"));
        assert!(may_publish(policy, "x", &mine) && may_subscribe(policy, "x", &mine));
        assert!(may_receive(policy, "x", &mine) && may_subscribe(policy, "x", "c/+/m"));
        let others = [foreign.as_str(), "c/x", "c", "u", "u/x/y", &format!("u/{other}/x")].map(str::to_owned);
        for topic in others {
            assert!(!may_publish(policy, "x", &topic), "{topic}");
            assert!(!may_subscribe(policy, "x", &topic), "{topic}");
            assert!(!may_receive(policy, "x", &topic), "{topic}");
        }
        assert!(!may_subscribe(policy, "x", "u/#") && !may_publish(policy, "x", "$SYS/x"));
    }
    // With "#" they hear what they are members of, and nothing else of it.
    assert!(may_subscribe(&open_to_all, "x", "#"));
    let lab = policy(TopicPolicy::Open, rules(&["- all c/#"]));
    assert!(
        !may_publish(&lab, "x", "c/x") && !may_subscribe(&lab, "x", "c/+") && !may_receive(&lab, "x", "c")
    );
}

#[test]
fn a_wildcard_in_a_client_identifier_opens_nothing_and_closes_what_it_might() {
    let allow = policy(TopicPolicy::Membership, rules(&["+ all d/%c/#"]));
    let deny = policy(TopicPolicy::Open, rules(&["- all d/%c/#"]));
    for client_id in ["+", "#", "a/+", "a/#"] {
        for topic in ["d/x", "d/a", "d/a/b"] {
            assert!(!may_publish(&allow, client_id, topic) && !may_receive(&allow, client_id, topic));
            assert!(!may_publish(&deny, client_id, topic) && !may_receive(&deny, client_id, topic));
        }
        for requested in ["d/#", "d/+", "d/+/+", "d/a/#"] {
            assert!(!may_subscribe(&allow, client_id, requested), "{requested}");
            assert!(!may_subscribe(&deny, client_id, requested), "{requested}");
        }
        assert!(may_publish(&deny, client_id, "e/x"));
    }
    assert!(may_subscribe(&allow, "a", "d/a/+") && !may_subscribe(&allow, "a", "d/+/a"));
}

#[test]
fn rules_that_are_replaced_hold_from_the_next_question_on() {
    let policy = policy(TopicPolicy::Membership, Vec::new());
    assert!(!policy.has_acl_rules() && !may_receive(&policy, "x", "a"));
    replace(&policy, TopicPolicy::Membership, rules(&["+ all a"]));
    assert!(policy.has_acl_rules() && may_receive(&policy, "x", "a"));
    // A change that is not of rules leaves them alone.
    policy.add_tenant(TENANT, TopicPolicy::Membership);
    assert!(may_receive(&policy, "x", "a"));
    replace(&policy, TopicPolicy::Membership, Vec::new());
    assert!(!policy.has_acl_rules() && !may_receive(&policy, "x", "a"));
}

/// Few enough to be enumerated: `z` is in no filter, `$s` is the server's.
const NAMES: [&str; 5] = ["a", "b", "", "z", "$s"];
const LEVELS_MAX: usize = 4;

fn topics() -> Vec<String> {
    let mut topics: Vec<Vec<&str>> = vec![vec![]];
    let mut all = Vec::new();
    for _ in 0..LEVELS_MAX {
        topics = topics
            .iter()
            .flat_map(|topic| NAMES.map(|name| topic.iter().copied().chain([name]).collect()))
            .collect();
        all.extend(topics.iter().map(|levels| levels.join("/")).filter(|topic| !topic.is_empty()));
    }
    all
}

/// At most one level less than topics have, so that `#` always reaches a topic deeper than the filter.
fn a_filter(names: &'static [&'static str]) -> impl Strategy<Value = String> {
    let level = prop::sample::select(names);
    (prop::collection::vec(level, 1..LEVELS_MAX), prop::bool::weighted(0.4))
        .prop_map(|(mut levels, open_ended)| {
            if open_ended {
                levels.pop();
                levels.push("#");
            }
            levels.join("/")
        })
        .prop_filter("not empty", |filter| !filter.is_empty())
}

fn a_rule() -> impl Strategy<Value = AclRule> {
    let effect = prop::sample::select(&[AclEffect::Allow, AclEffect::Deny][..]);
    (effect, a_filter(&["a", "b", "", "+", "+", "$s", "%c"]))
        .prop_map(|(effect, filter)| rule(effect, AclAction::All, &filter))
}

/// With the client id written out, and matched as topics are.
fn matches(rule: &AclRule, client_id: &str, topic: &str) -> bool {
    let substituted = rule.filter.as_str().replace("%c", client_id);
    filter(&substituted).matches(&name(topic))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn the_rules_decide_as_an_enumeration_of_topics_does(
        rules in prop::collection::vec(a_rule(), 0..5),
        requested in a_filter(&["a", "b", "", "+", "+", "$s"]),
        client_id in prop::sample::select(&["a", "b", "a/b", "q"][..]),
        open in any::<bool>(),
    ) {
        let topics = topics();
        let tenant = if open { TopicPolicy::Open } else { TopicPolicy::Membership };
        let policy = policy(tenant, rules.clone());
        let (default, of) = (if open { AclEffect::Allow } else { AclEffect::Deny }, filter(&requested));
        for topic in &topics {
            let first = rules.iter().find(|rule| matches(rule, client_id, topic));
            let allowed = first.map_or(default, |rule| rule.effect) == AclEffect::Allow;
            prop_assert_eq!(may_receive(&policy, client_id, topic), allowed);
            let publish = allowed && (open || !topic.starts_with('$'));
            prop_assert_eq!(may_publish(&policy, client_id, topic), publish);
        }
        let reached: Vec<&String> = topics.iter().filter(|topic| of.matches(&name(topic))).collect();
        prop_assert!(!reached.is_empty());
        let first = rules
            .iter()
            .find(|rule| reached.iter().all(|topic| matches(rule, client_id, topic)));
        let allowed = first.map_or(default, |rule| rule.effect) == AclEffect::Allow;
        prop_assert_eq!(may_subscribe(&policy, client_id, &requested), allowed);
    }
}
