//! What the broker's process uses, from its own Prometheus endpoint.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::str::FromStr;
use std::time::Duration;

use crate::limits::{METRICS_BYTES_MAX, METRICS_TIMEOUT};
use crate::server_process::ServerSample;

/// `http://HOST:PORT/PATH`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerMetrics {
    authority: String,
    path: String,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ServerMetricsError {
    #[error("metrics of the broker cannot be read from {0}: {1}")]
    Unreadable(ServerMetrics, io::Error),
    #[error("{0} answered `{1}`")]
    Refused(ServerMetrics, String),
    #[error("{0} has no `{1}`")]
    Missing(ServerMetrics, &'static str),
}

const MEMORY: &str = "process_resident_memory_bytes";
const CPU: &str = "process_cpu_seconds_total";

impl ServerMetrics {
    pub(crate) fn sample(&self) -> Result<ServerSample, ServerMetricsError> {
        let text = self.fetch().map_err(|error| ServerMetricsError::Unreadable(self.clone(), error))?;
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.lines().next().unwrap_or_default();
        if status.split(' ').nth(1) != Some("200") {
            return Err(ServerMetricsError::Refused(self.clone(), status.chars().take(80).collect()));
        }
        let read = |name| value(body, name).ok_or_else(|| ServerMetricsError::Missing(self.clone(), name));
        let (memory, cpu) = (read(MEMORY)?, read(CPU)?);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a cast from float saturates, and memory is not negative"
        )]
        let rss_bytes = memory as u64;
        let cpu = Duration::try_from_secs_f64(cpu).unwrap_or_default();
        Ok(ServerSample { rss_bytes, cpu })
    }

    /// HTTP/1.0, so that the answer comes as it is and ends with the connection.
    fn fetch(&self) -> io::Result<String> {
        let address = self.authority.to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound)?;
        let mut stream = TcpStream::connect_timeout(&address, METRICS_TIMEOUT)?;
        stream.set_read_timeout(Some(METRICS_TIMEOUT))?;
        stream.set_write_timeout(Some(METRICS_TIMEOUT))?;
        let Self { authority, path } = self;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {authority}\r\n\r\n").as_bytes())?;
        let mut answer = Vec::new();
        stream.take(METRICS_BYTES_MAX).read_to_end(&mut answer)?;
        String::from_utf8(answer).map_err(|_| io::ErrorKind::InvalidData.into())
    }
}

/// The sum over all labels.
fn value(body: &str, name: &str) -> Option<f64> {
    let of_line = |line: &str| {
        let rest = line.strip_prefix(name)?;
        let rest = match rest.strip_prefix('{') {
            Some(labels) => labels.rsplit_once('}')?.1,
            None => rest,
        };
        // A longer name begins the same.
        let mut fields = rest.strip_prefix(' ')?.split_ascii_whitespace();
        fields.next()?.parse::<f64>().ok().filter(|value| value.is_finite())
    };
    body.lines().filter_map(of_line).reduce(|sum, value| sum + value)
}

impl FromStr for ServerMetrics {
    type Err = &'static str;

    fn from_str(raw: &str) -> Result<Self, &'static str> {
        let rest = raw.strip_prefix("http://").ok_or("expected http://HOST:PORT/PATH")?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, "metrics"));
        if authority.is_empty() || raw.chars().any(|c| c.is_control() || c == ' ') {
            return Err("expected http://HOST:PORT/PATH");
        }
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let authority = if has_port { authority.to_owned() } else { format!("{authority}:80") };
        Ok(Self { authority, path: format!("/{path}") })
    }
}

impl fmt::Display for ServerMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn serve(answer: &'static str) -> ServerMetrics {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a scraper");
            let mut request = [0; 1024];
            let read = stream.read(&mut request).expect("a request");
            assert!(request[..read].starts_with(b"GET /m HTTP/1.0\r\n"));
            stream.write_all(answer.as_bytes()).expect("sent");
        });
        format!("http://{address}/m").parse().expect("an address")
    }

    #[test]
    fn memory_and_cpu_are_read_from_among_the_rest() {
        let metrics = serve(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n# HELP process_resident_memory_bytes x\n\
             process_resident_memory_bytes_total 1\nprocess_resident_memory_bytes 1.5e6\n\
             process_cpu_seconds_total{mode=\"user\"} 1.25 1700000000\n\
             process_cpu_seconds_total{mode=\"system\"} 0.25\n",
        );
        let sample = metrics.sample().expect("a sample");
        assert_eq!(sample, ServerSample { rss_bytes: 1_500_000, cpu: Duration::from_millis(1500) });
    }

    #[test]
    fn an_endpoint_without_them_is_told_with_what_it_lacks() {
        let error = serve("HTTP/1.1 200 OK\r\n\r\nup 1\n").sample().expect_err("nothing there").to_string();
        assert!(error.ends_with("/m has no `process_resident_memory_bytes`"), "{error}");
        let error = serve("HTTP/1.1 404 Not Found\r\n\r\n").sample().expect_err("refused").to_string();
        assert!(error.ends_with("answered `HTTP/1.1 404 Not Found`"), "{error}");
    }

    #[test]
    fn an_endpoint_is_an_http_address() {
        let text = |raw: &str| raw.parse::<ServerMetrics>().map(|metrics| metrics.to_string());
        assert_eq!(text("http://host:9464/m/x?y=1"), Ok("http://host:9464/m/x?y=1".into()));
        assert_eq!(text("http://host"), Ok("http://host:80/metrics".into()));
        for bad in ["https://host", "host:1", "http:///x", "http://h/a b", "http://h/\r\nX: y"] {
            assert!(text(bad).is_err(), "{bad}");
        }
    }
}
