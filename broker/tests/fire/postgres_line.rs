//! A line to PostgreSQL of the harness's own: plain statements, and places that are taken.

use std::path::{Path, PathBuf};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// Of the test server.
const SUPERUSER: &str = "sotto";

pub(crate) struct PostgresLine {
    stream: UnixStream,
}

/// Where the server in this folder listens.
pub(crate) fn socket(folder: &Path) -> PathBuf {
    folder.join(".s.PGSQL.5432")
}

impl PostgresLine {
    /// `None` where the server is away or has no place.
    pub(crate) async fn open(socket: &Path) -> Option<Self> {
        let stream = UnixStream::connect(socket).await.ok()?;
        let mut line = Self { stream };
        let mut startup = 196_608_u32.to_be_bytes().to_vec();
        for word in ["user", SUPERUSER, "database", "postgres", ""] {
            startup.extend_from_slice(word.as_bytes());
            startup.push(0);
        }
        line.send(None, &startup).await?;
        line.until_ready().await?;
        Some(line)
    }

    /// The first column of each row, as text.
    pub(crate) async fn run(&mut self, statement: &str) -> Option<Vec<String>> {
        let mut body = statement.as_bytes().to_vec();
        body.push(0);
        self.send(Some(b'Q'), &body).await?;
        self.until_ready().await
    }

    async fn send(&mut self, kind: Option<u8>, body: &[u8]) -> Option<()> {
        let mut bytes: Vec<u8> = kind.into_iter().collect();
        bytes.extend(u32::try_from(body.len() + 4).ok()?.to_be_bytes());
        bytes.extend_from_slice(body);
        self.stream.write_all(&bytes).await.ok()
    }

    /// `None` for an error, and where the connection ends.
    async fn until_ready(&mut self) -> Option<Vec<String>> {
        let mut rows = Vec::new();
        let mut failed = false;
        loop {
            let kind = self.stream.read_u8().await.ok()?;
            let len = usize::try_from(self.stream.read_u32().await.ok()?).ok()?.checked_sub(4)?;
            let mut body = vec![0; len];
            self.stream.read_exact(&mut body).await.ok()?;
            match kind {
                b'Z' => return (!failed).then_some(rows),
                b'E' => failed = true,
                // Columns (2), then each: length (4), bytes.
                b'D' => {
                    let len = usize::try_from(u32::from_be_bytes(*body.get(2..)?.first_chunk()?)).ok()?;
                    rows.push(String::from_utf8_lossy(body.get(6..6 + len)?).into_owned());
                }
                _ => {}
            }
        }
    }
}
