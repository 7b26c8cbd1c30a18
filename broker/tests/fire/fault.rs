//! What is done to broker and database.

use std::fmt;

use crate::support::database::Kind;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    BrokerKilled,
    BrokerRestarted,
    DiskFull,
    DiskSlow,
    ServerKilled,
    BothKilled,
    ServerRestarted,
    BackendsTerminated,
    ConnectionsCut,
    ConnectionsHeld,
    ConnectionsHung,
    CutAtCommit,
    ReadOnly,
    ConnectionsTaken,
}

impl Fault {
    /// One round, in no order.
    pub(crate) fn round(kind: Kind) -> Vec<Self> {
        let everywhere = [Self::BrokerRestarted, Self::DiskFull, Self::DiskSlow];
        let kills = [Self::BrokerKilled; 3];
        let of_a_server = [
            Self::ServerKilled,
            Self::ServerKilled,
            Self::BothKilled,
            Self::ServerRestarted,
            Self::BackendsTerminated,
            Self::ConnectionsCut,
            Self::ConnectionsHeld,
            Self::CutAtCommit,
            Self::CutAtCommit,
            Self::ReadOnly,
            Self::ConnectionsTaken,
        ];
        let mut round = [&everywhere[..], &kills].concat();
        if kind == Kind::Postgres {
            round.extend(of_a_server);
        }
        round
    }

    /// What takes too long for every round.
    pub(crate) fn rare(kind: Kind) -> &'static [Self] {
        match kind {
            Kind::Sqlite => &[],
            Kind::Postgres => &[Self::ConnectionsHung],
        }
    }

    pub(crate) fn is_kill(self) -> bool {
        matches!(self, Self::BrokerKilled | Self::ServerKilled | Self::BothKilled)
    }

    pub(crate) fn needs_shim(self) -> bool {
        matches!(self, Self::DiskFull | Self::DiskSlow)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::BrokerKilled => "broker killed",
            Self::BrokerRestarted => "broker restarted",
            Self::DiskFull => "disk full",
            Self::DiskSlow => "disk slow",
            Self::ServerKilled => "PostgreSQL killed",
            Self::BothKilled => "broker and PostgreSQL killed",
            Self::ServerRestarted => "PostgreSQL restarted",
            Self::BackendsTerminated => "backends terminated",
            Self::ConnectionsCut => "connections cut",
            Self::ConnectionsHeld => "connections held",
            Self::ConnectionsHung => "connections hung",
            Self::CutAtCommit => "cut at COMMIT",
            Self::ReadOnly => "read-only",
            Self::ConnectionsTaken => "connections taken",
        })
    }
}
