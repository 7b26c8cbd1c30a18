//! What a run leaves behind says the same everywhere. Where mosquitto is not installed it is skipped, with a
//! word on standard error.

#![expect(clippy::disallowed_methods, reason = "it waits for a broker to start")]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

mod support;

use support::{Broker, free_port, text};

#[test]
#[expect(clippy::cast_precision_loss, reason = "microseconds")]
fn page_json_and_csv_say_the_same() {
    let Some(broker) = Broker::start("allow_anonymous true") else { return };
    let path = |name: &str| broker.folder.path().join(name);
    let (page, csv) = (path("report.html"), path("timeline.csv"));
    let (output, report) = broker.load(&[
        "pubsub",
        "--pubs",
        "4",
        "--subs",
        "4",
        "--topics",
        "4",
        "--rate",
        "400",
        "--seconds",
        "3",
        "--max-p999",
        "10s",
        "--max-duplicates",
        "0",
        "--max-memory-per-connection",
        "100MB",
        "--html",
        page.to_str().expect("text"),
        "--csv",
        csv.to_str().expect("text"),
    ]);
    assert!(output.status.success(), "{output:?}");
    let page = fs::read_to_string(page).expect("a page");
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..roxmltree::ParsingOptions::default() };
    let page = roxmltree::Document::parse_with_options(&page, options).expect("well-formed");

    // The percentiles of the page's table are those of the JSON.
    let row = page
        .descendants()
        .filter(|node| node.has_tag_name("tr"))
        .find(|row| row.children().any(|cell| cell.text() == Some("delivery, since due")))
        .expect("a row of deliveries");
    let cells: Vec<_> = row.children().filter_map(|cell| cell.text()).collect();
    let of_json = |figure: &str| report["delivery"][figure].as_u64().expect("a number");
    assert_eq!(cells[1], of_json("count").to_string());
    for (cell, figure) in cells[2..].iter().zip(["p50_us", "p90_us", "p99_us", "p999_us", "max_us"]) {
        assert_eq!(*cell, format!("{:.2}", of_json(figure) as f64 / 1000.0), "{figure}");
    }

    // What was recorded by the second adds up to what was counted in all, to the last digit.
    assert_eq!(report["latencies"]["delivery"], report["delivery"]);
    assert_eq!(report["latencies"]["acknowledged"], report["acknowledged"]);
    assert_eq!(report["latencies"]["connect"], report["connecting"]["total"]);
    let timeline = report["timeline"].as_array().expect("rows");
    let sum = |kind: &str| timeline.iter().filter_map(|row| row[kind]["count"].as_u64()).sum::<u64>();
    assert_eq!(sum("delivery"), 1200);
    assert_eq!(sum("connect"), 8);
    assert!(timeline.iter().any(|row| row["server_rss_bytes"].is_u64()));
    assert!(timeline.iter().any(|row| row["connections"] == 8));

    let csv = fs::read_to_string(csv).expect("rows");
    let rows: Vec<Vec<_>> = csv.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(rows.len(), timeline.len() + 1);
    let column = rows[0].iter().position(|name| *name == "delivery_p99_us").expect("a column");
    for (row, point) in rows[1..].iter().zip(timeline) {
        let p99 = point["delivery"]["p99_us"].as_u64().filter(|p99| *p99 > 0);
        assert_eq!(row[column], p99.map_or_else(String::new, |p99| p99.to_string()));
    }

    let met = |objective: &Value| objective["met"] == true;
    assert_eq!(report["objectives"].as_array().map(Vec::len), Some(3), "{report}");
    assert!(report["objectives"].as_array().is_some_and(|all| all.iter().all(met)), "{report}");
}

const START_TIMEOUT: Duration = Duration::from_secs(30);

#[test]
fn figures_can_be_collected_while_the_run_lasts() {
    let Some(broker) = Broker::start("allow_anonymous true") else { return };
    let address = format!("127.0.0.1:{}", free_port());
    let mut load = broker.command(&["hold", "--n", "30", "--hold", "4", "--prometheus", &address]);
    let load = load.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run");
    let since = Instant::now();
    let mut answer = String::new();
    // All are connected, and the second in which they were is over.
    while !answer.contains("\nsotto_loadtest_connect_seconds_count 30\n") && since.elapsed() < START_TIMEOUT {
        sleep(Duration::from_millis(200));
        let Ok(mut stream) = TcpStream::connect(&address) else { continue };
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
        answer.clear();
        stream.read_to_string(&mut answer).expect("an answer");
    }
    for line in [
        "\nsotto_loadtest_connections 30\n",
        "\nsotto_loadtest_connects_total 30\n",
        "\nsotto_loadtest_connect_seconds_count 30\n",
        "\nsotto_loadtest_server_resident_memory_bytes ",
    ] {
        assert!(answer.contains(line), "{line:?} in {answer}");
    }
    let output = load.wait_with_output().expect("ended");
    assert!(output.status.success(), "{output:?}");
    assert!(text(&output.stderr).contains(&format!("metrics at http://{address}/metrics")), "{output:?}");
}
