//! What the clients of a run need of the machines that they are on.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Demand {
    /// Connections at the same time: a file each.
    pub(crate) connections: u64,
    /// Ports at the same time, with those that rest after their connection.
    pub(crate) ports: u64,
    /// Clients are numbered below, whichever of them there are.
    pub(crate) numbers: u64,
}

impl Demand {
    /// Of clients that are all connected at once.
    pub(crate) fn of(clients: u64) -> Self {
        Self { connections: clients, ports: clients, numbers: clients }
    }

    /// What so many of as many parts need. Where publishers and subscribers do not divide, one of each more:
    /// less than what is kept in reserve.
    #[must_use]
    pub(crate) fn share(self, some: u32, parts: u32) -> Self {
        let share = |count: u64| (count * u64::from(some)).div_ceil(u64::from(parts));
        Self { connections: share(self.connections), ports: share(self.ports), numbers: self.numbers }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_needs_its_share_of_files_and_ports_and_the_numbers_of_all() {
        let demand = Demand { connections: 10, ports: 100, numbers: 1000 };
        assert_eq!(demand.share(1, 3), Demand { connections: 4, ports: 34, numbers: 1000 });
        assert_eq!(demand.share(3, 3), demand);
        assert_eq!(demand.share(0, 3), Demand { connections: 0, ports: 0, numbers: 1000 });
    }
}
