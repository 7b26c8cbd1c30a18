//! How many pushes a second go over one connection to APNs, and what one costs: the pusher in this process,
//! the service in another.
//!
//! ```text
//! cargo run --release -p sotto-push-emulators --example push_rate [PUSHES]
//! ```

#![expect(clippy::disallowed_macros, clippy::disallowed_methods, reason = "it measures and prints")]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sotto_model::Urgency;
use sotto_push_emulators::apns::{KEY_ID, TEAM_ID, TOPIC};
use sotto_push_emulators::{ApnsEmulator, Authority, WallClock};
use sotto_storage::push_registry::Platform;
use sotto_wakeup::{Apns, ApnsConfig, HttpTimings, PushOutcome, PushToken, Pusher, Wakeup};
use tokio::task::JoinSet;

const PUSHES: usize = 50_000;
const IN_FLIGHT: [usize; 4] = [1, 16, 64, 256];
/// Of the times in /proc, a second.
const TICKS_PER_SECOND: f64 = 100.0;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next();
    if first.as_deref() == Some("serve") {
        return serve(Path::new(&arguments.next().expect("a folder"))).await;
    }
    let pushes = first.map_or(PUSHES, |count| count.parse().expect("a count"));
    let service = Service::start();
    let apns = Arc::new(service.pusher());
    // The connection and the provider token are there before anything is measured.
    assert_eq!(push(&apns, 0).await, PushOutcome::Delivered);
    println!("in flight   pushes/s   CPU µs/push: pusher   service   p50 ms   p99 ms");
    for in_flight in IN_FLIGHT {
        let cpu = [cpu_seconds("self"), cpu_seconds(&service.process.id().to_string())];
        let started = Instant::now();
        let mut latencies = push_all(&apns, pushes, in_flight).await;
        let wall = started.elapsed();
        let service_cpu = cpu_seconds(&service.process.id().to_string()) - cpu[1];
        let pusher_cpu = cpu_seconds("self") - cpu[0];
        latencies.sort_unstable();
        println!(
            "{in_flight:9}   {:8.0}   {:19.1}   {:7.1}   {:6.2}   {:6.2}",
            per(pushes, wall.as_secs_f64()),
            pusher_cpu * 1e6 / count(pushes),
            service_cpu * 1e6 / count(pushes),
            latencies[pushes / 2].as_secs_f64() * 1e3,
            latencies[pushes * 99 / 100].as_secs_f64() * 1e3,
        );
    }
}

async fn push_all(apns: &Arc<Apns>, pushes: usize, in_flight: usize) -> Vec<Duration> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..in_flight {
        let (apns, next) = (apns.clone(), next.clone());
        workers.spawn(async move {
            let mut latencies = Vec::new();
            loop {
                let device = next.fetch_add(1, Ordering::Relaxed);
                if device >= pushes {
                    return latencies;
                }
                let started = Instant::now();
                assert_eq!(push(&apns, device).await, PushOutcome::Delivered);
                latencies.push(started.elapsed());
            }
        });
    }
    workers.join_all().await.concat()
}

async fn push(apns: &Apns, device: usize) -> PushOutcome {
    let token = PushToken::new(format!("{device:064x}"));
    apns.push(Wakeup { token, platform: Platform::Apns, urgency: Urgency::High }).await
}

/// The emulator in a process of its own.
struct Service {
    process: Child,
    folder: PathBuf,
    base_url: String,
}

impl Service {
    fn start() -> Self {
        let folder = std::env::temp_dir().join(format!("sotto-push-rate-{}", std::process::id()));
        fs::create_dir(&folder).expect("a folder");
        let program = std::env::current_exe().expect("this program");
        let mut process = Command::new(program)
            .arg("serve")
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let mut base_url = String::new();
        let output = process.stdout.take().expect("piped");
        BufReader::new(output).read_line(&mut base_url).expect("it listens");
        Self { process, folder, base_url: base_url.trim_end().to_owned() }
    }

    fn pusher(&self) -> Apns {
        let config = ApnsConfig {
            topic: TOPIC.to_owned(),
            team_id: TEAM_ID.to_owned(),
            key_id: KEY_ID.to_owned(),
            key_file: self.folder.join("key.p8"),
            base_url: self.base_url.parse().expect("an origin"),
            extra_roots: Some(fs::read(self.folder.join("root.pem")).expect("a root")),
            timings: HttpTimings::default(),
        };
        Apns::new(config, Arc::new(WallClock)).expect("a pusher")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It ends with its standard input.
        drop(self.process.stdin.take());
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

async fn serve(folder: &Path) {
    let authority = Authority::new();
    let emulator = ApnsEmulator::without_records(&authority, Arc::new(WallClock)).await;
    fs::write(folder.join("key.p8"), emulator.rules.key_pem()).expect("written");
    fs::write(folder.join("root.pem"), authority.root_pem()).expect("written");
    println!("{}", emulator.server.base_url());
    let ended = tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0]));
    let _ = ended.await;
}

/// User and system time of a process so far.
fn cpu_seconds(process: &str) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("a process");
    // The second field, a name in parentheses, may hold spaces.
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    let ticks: f64 =
        fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<f64>().expect("ticks")).sum();
    ticks / TICKS_PER_SECOND
}

fn per(pushes: usize, seconds: f64) -> f64 {
    count(pushes) / seconds
}

#[expect(clippy::cast_precision_loss, reason = "a count far below 2^52")]
fn count(pushes: usize) -> f64 {
    pushes as f64
}
