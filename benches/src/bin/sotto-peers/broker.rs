//! The brokers that are compared.

use clap::ValueEnum;
use serde::Serialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Broker {
    /// Sotto with sessions that end with their connection: nothing is stored
    Sotto,
    /// Sotto with stored sessions: every message is committed to SQLite before its PUBACK
    SottoSqlite,
    /// Sotto with stored sessions: every message is committed to PostgreSQL before its PUBACK
    SottoPostgres,
    Mosquitto,
    Rmqtt,
    Rumqttd,
    Aedes,
}

impl Broker {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sotto => "Sotto",
            Self::SottoSqlite => "Sotto, stored in SQLite",
            Self::SottoPostgres => "Sotto, stored in PostgreSQL",
            Self::Mosquitto => "mosquitto",
            Self::Rmqtt => "rmqtt",
            Self::Rumqttd => "rumqttd",
            Self::Aedes => "aedes",
        }
    }

    pub(crate) fn is_sotto(self) -> bool {
        matches!(self, Self::Sotto | Self::SottoSqlite | Self::SottoPostgres)
    }

    /// Whether its sessions outlive their connections, so that QoS 1 messages are committed before they are
    /// acknowledged. None of the others does that, whatever its sessions.
    pub(crate) fn stores(self) -> bool {
        matches!(self, Self::SottoSqlite | Self::SottoPostgres)
    }

    /// What differs from how it comes.
    pub(crate) fn settings(self) -> &'static str {
        match self {
            Self::Sotto => "--lab, SQLite that nothing is written to; logs to nowhere",
            Self::SottoSqlite => "--lab, SQLite (WAL, synchronous); Clean Session 0",
            Self::SottoPostgres => {
                "--lab, PostgreSQL on a Unix socket, fsync and synchronous_commit on, shared_buffers 256 MB; \
                 Clean Session 0"
            }
            Self::Mosquitto => {
                "no persistence, set_tcp_nodelay, max_inflight_messages 128, max_queued_messages 100000, no log"
            }
            Self::Rmqtt => {
                "the library with jemalloc as in its daemon, no plugins, no busy check, nodelay, max_inflight \
                 128, max_mqueue_len 100000"
            }
            Self::Rumqttd => "next_connection_delay_ms 0, max_inflight_count 128, no console, no metrics",
            Self::Aedes => "in memory, noDelay",
        }
    }
}
