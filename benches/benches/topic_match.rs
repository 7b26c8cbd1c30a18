//! What it costs to hold one filter against one topic. The limit is the comparison of two strings of a
//! topic's length: an exact filter is nothing else, a wildcard may not be many times more.

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use sotto_model::{TopicFilter, TopicName};

const TOPIC: &str = "c/0190a0b0-0000-7000-8000-0000000000ab/m";

fn main() {
    divan::main();
}

/// The limit.
#[divan::bench]
fn compare_strings(bencher: Bencher<'_, '_>) {
    let other = TOPIC.to_owned();
    bencher.counter(ItemsCount::new(1_usize)).bench(|| black_box(TOPIC) == black_box(other.as_str()));
}

#[divan::bench(args = [
    "c/0190a0b0-0000-7000-8000-0000000000ab/m",
    "c/0190a0b0-0000-7000-8000-0000000000ac/m",
    "c/+/m",
    "c/#",
    "c/+/typing",
    "u/+/m",
    "$share/relay/c/+/m",
])]
fn match_a_conversation(bencher: Bencher<'_, '_>, filter: &str) {
    bench_match(bencher, filter, TOPIC);
}

/// As deep as a topic may be: the worst that a client can ask for.
#[divan::bench(args = ["exact", "plus", "hash"])]
fn match_the_deepest_topic(bencher: Bencher<'_, '_>, kind: &str) {
    let levels = sotto_model::limits::TOPIC_LEVELS_MAX;
    let topic = vec!["level"; levels].join("/");
    let filter = match kind {
        "plus" => vec!["+"; levels].join("/"),
        "hash" => format!("{}/#", vec!["+"; levels - 1].join("/")),
        _ => topic.clone(),
    };
    bench_match(bencher, &filter, &topic);
}

#[divan::bench(args = ["c/0190a0b0-0000-7000-8000-0000000000ab/m", "c/+/m"])]
fn parse_a_filter(bencher: Bencher<'_, '_>, filter: &str) {
    bencher.counter(ItemsCount::new(1_usize)).bench(|| TopicFilter::parse(black_box(filter)));
}

fn bench_match(bencher: Bencher<'_, '_>, filter: &str, topic: &str) {
    let filter = TopicFilter::parse(filter).expect("a valid filter");
    let topic = TopicName::parse(topic).expect("a valid topic");
    bencher.counter(ItemsCount::new(1_usize)).bench(|| black_box(&filter).matches(black_box(&topic)));
}
