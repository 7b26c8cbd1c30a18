//! The figures of a run that lasts, for Prometheus to collect: one small answer over HTTP/1.1, one collector
//! at a time.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Weak};
use std::time::Instant;

use crate::latencies::Latencies;
use crate::limits::{SCRAPE_BYTES_MAX, SCRAPE_TIMEOUT};
use crate::recorder::{Live, Recorder};

/// Serves on a thread of its own until the run, or the process, ends.
pub(crate) fn serve(address: SocketAddr, recorder: &Arc<Recorder>) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(address)?;
    let address = listener.local_addr()?;
    let recorder = Arc::downgrade(recorder);
    std::thread::Builder::new().name("prometheus".into()).spawn(move || accept(&listener, &recorder))?;
    Ok(address)
}

fn accept(listener: &TcpListener, recorder: &Weak<Recorder>) {
    for stream in listener.incoming() {
        let Some(recorder) = recorder.upgrade() else { return };
        // A collector that goes away, or asks for something else, comes again.
        let _ = stream.and_then(|stream| answer(stream, &recorder));
    }
}

fn answer(mut stream: TcpStream, recorder: &Recorder) -> io::Result<()> {
    stream.set_write_timeout(Some(SCRAPE_TIMEOUT))?;
    let (status, body) = match read_request(&mut stream)?.as_deref() {
        Some("/metrics") => ("200 OK", text(&recorder.live(), &recorder.latencies())),
        Some(_) => ("404 Not Found", "the figures are at /metrics\n".into()),
        None => ("400 Bad Request", "expected GET\n".into()),
    };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

/// The path of a GET; `None` for anything else.
fn read_request(stream: &mut TcpStream) -> io::Result<Option<String>> {
    let deadline = Instant::now() + SCRAPE_TIMEOUT;
    let mut request = Vec::new();
    let mut chunk = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || request.len() > SCRAPE_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => request.extend_from_slice(&chunk[..read]),
        }
    }
    let request = String::from_utf8_lossy(&request);
    let mut line = request.lines().next().unwrap_or_default().split(' ');
    let path = (line.next() == Some("GET")).then(|| line.next()).flatten();
    Ok(path.map(|path| path.split('?').next().unwrap_or_default().to_owned()))
}

fn text(live: &Live, latencies: &[Latencies; 3]) -> String {
    let mut text = String::new();
    let totals = &live.totals;
    let mut number = |name: &str, kind: &str, help: &str, value: f64| {
        let _ = writeln!(
            text,
            "# HELP sotto_loadtest_{name} {help}\n# TYPE sotto_loadtest_{name} {kind}\n\
             sotto_loadtest_{name} {value}"
        );
    };
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53")]
    for (name, help, value) in [
        ("connects_total", "Connections that came as far as CONNACK and SUBACK", totals.connected),
        ("connect_failures_total", "Connections that did not", totals.connect_failed),
        ("sessions_ended_total", "Sessions that have ended, in order or not", totals.ended),
        ("published_total", "Messages sent", totals.sent),
        ("accepted_total", "Messages acknowledged; at QoS 0 written", totals.accepted),
        ("refused_total", "Messages acknowledged with an error", totals.refused),
        ("delivered_total", "Deliveries, each once", totals.delivered),
    ] {
        number(name, "counter", help, value as f64);
    }
    let point = &live.point;
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53")]
    for (name, help, value) in [
        ("connections", "Sessions connected", Some(totals.live() as f64)),
        ("cores", "Cores that the load tester uses", Some(point.load_tester_cores)),
        (
            "busy_share",
            "Share of its own cores that the load tester keeps busy",
            Some(point.load_tester_busy),
        ),
        (
            "server_resident_memory_bytes",
            "The broker's memory",
            point.server_rss_bytes.map(|bytes| bytes as f64),
        ),
        ("server_cores", "Cores that the broker uses", point.server_cores),
    ] {
        if let Some(value) = value {
            number(name, "gauge", help, value);
        }
    }
    for (name, help, latencies) in [
        ("connect_seconds", "From when a connection was due to its last step", &latencies[0]),
        ("acknowledged_seconds", "From when a message was due to its acknowledgement", &latencies[1]),
        ("delivery_seconds", "From when a message was due to its delivery", &latencies[2]),
    ] {
        summary(&mut text, name, help, latencies);
    }
    text
}

#[expect(clippy::cast_precision_loss, reason = "far less than 2^53")]
fn summary(text: &mut String, name: &str, help: &str, latencies: &Latencies) {
    let summary = latencies.summary();
    let _ = writeln!(text, "# HELP sotto_loadtest_{name} {help}\n# TYPE sotto_loadtest_{name} summary");
    for (quantile, micros) in [
        ("0.5", summary.p50_us),
        ("0.9", summary.p90_us),
        ("0.99", summary.p99_us),
        ("0.999", summary.p999_us),
    ] {
        let _ = writeln!(text, "sotto_loadtest_{name}{{quantile=\"{quantile}\"}} {}", micros as f64 / 1e6);
    }
    let _ = writeln!(text, "sotto_loadtest_{name}_sum {}", latencies.sum_us() / 1e6);
    let _ = writeln!(text, "sotto_loadtest_{name}_count {}", summary.count);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::own_usage::ThisProcess;
    use crate::run_clock::RunClock;

    fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).expect("connected");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    #[test]
    fn a_collector_gets_the_figures_and_everyone_else_a_refusal() {
        let recorder = Arc::new(Recorder::start(RunClock::start(), None, Arc::new(ThisProcess(1))));
        let address = serve("127.0.0.1:0".parse().expect("an address"), &recorder).expect("a port");
        let answer = ask(address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
        assert!(body.contains("\nsotto_loadtest_connects_total 0\n"), "{body}");
        assert!(!body.contains("server_cores"), "nobody looks at a broker: {body}");
        assert!(ask(address, "GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
        assert!(ask(address, "POST /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 400"));
    }

    #[test]
    fn a_request_without_an_end_is_not_kept() {
        let recorder = Arc::new(Recorder::start(RunClock::start(), None, Arc::new(ThisProcess(1))));
        let address = serve("127.0.0.1:0".parse().expect("an address"), &recorder).expect("a port");
        let mut stream = TcpStream::connect(address).expect("connected");
        let line = format!("X: {}\r\n", "y".repeat(1000));
        // It is closed in the midst of them, so sending fails sooner or later.
        let sent = (0..10_000).take_while(|_| stream.write_all(line.as_bytes()).is_ok()).count();
        assert!(sent < 10_000);
        assert!(ask(address, "GET /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 200"));
    }

    #[test]
    fn latencies_are_in_seconds() {
        let mut latencies = Latencies::new();
        latencies.record_duration(Duration::from_millis(1500));
        let mut text = String::new();
        summary(&mut text, "delivery_seconds", "x", &latencies);
        let value = |line: &str| {
            let line = text.lines().find_map(|other| other.strip_prefix(line)).expect("the line");
            line.trim().parse::<f64>().expect("a number")
        };
        assert!((value("sotto_loadtest_delivery_seconds{quantile=\"0.99\"}") - 1.5).abs() < 0.002, "{text}");
        assert!((value("sotto_loadtest_delivery_seconds_sum") - 1.5).abs() < 0.002, "{text}");
        assert!((value("sotto_loadtest_delivery_seconds_count") - 1.0).abs() < 1e-9, "{text}");
    }
}
