use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// A member and what the test says of it.
#[derive(Debug)]
struct Member {
    name: u8,
    room: usize,
    /// May not have odd messages.
    evens_only: bool,
    holds: Vec<(Sequence, u32)>,
}

#[derive(Clone, Debug)]
enum Event {
    Join {
        room: usize,
        evens_only: bool,
    },
    Leave(usize),
    Publish,
    Room {
        member: usize,
        room: usize,
    },
    /// The member acknowledges the message that it has held for longest.
    Done(usize),
    /// The member's connection ends.
    Lost(usize),
}

#[derive(Default)]
struct World {
    group: Option<Distribution<u8, u32>>,
    members: Vec<Member>,
    /// Of members that left, and go on with what they hold.
    left: Vec<Member>,
    published: u32,
    done: BTreeSet<u32>,
    names: u8,
}

impl World {
    fn apply(&mut self, event: &Event) {
        let members = self.members.len();
        let group = self.group.get_or_insert_with(Distribution::new);
        match *event {
            Event::Join { room, evens_only } => {
                self.names += 1;
                self.members.push(Member { name: self.names, room, evens_only, holds: Vec::new() });
                group.join(self.names);
            }
            Event::Leave(which) if members > 0 => {
                let gone = self.members.remove(which % members);
                assert_eq!(group.leave(|name| *name == gone.name), Some(gone.name));
                self.left.push(gone);
            }
            Event::Publish => {
                group.add(self.published, 1);
                self.published += 1;
            }
            Event::Room { member, room } if members > 0 => self.members[member % members].room = room,
            Event::Done(which) => {
                let all = members + self.left.len();
                let holder = self.members.iter_mut().chain(&mut self.left).nth(which % all.max(1));
                if let Some(holder) = holder.filter(|holder| !holder.holds.is_empty()) {
                    let (sequence, message) = holder.holds.remove(0);
                    assert!(group.done(sequence));
                    assert!(!group.done(sequence), "once");
                    assert!(self.done.insert(message), "nobody else had done it");
                }
            }
            Event::Lost(which) if members > 0 => {
                for (sequence, _) in self.members[which % members].holds.drain(..) {
                    group.give_back(sequence);
                }
            }
            _ => {}
        }
        self.hand_out();
    }

    fn hand_out(&mut self) {
        let members = &mut self.members;
        let denied = self.group.get_or_insert_with(Distribution::new).hand_out(|name, sequence, message| {
            let member = members.iter_mut().find(|member| member.name == *name).expect("a member");
            if member.evens_only && message % 2 == 1 {
                return Offered::Denied;
            }
            if member.holds.len() >= member.room {
                return Offered::Full;
            }
            member.holds.push((sequence, *message));
            Offered::Taken
        });
        for message in denied {
            assert!(
                message % 2 == 1 && members.iter().all(|member| member.evens_only) && !members.is_empty()
            );
            self.done.insert(message);
        }
    }

    /// Every message is done, held by exactly one, or waits for somebody with room who may have it.
    fn check(&self) {
        let held: Vec<u32> = self
            .members
            .iter()
            .chain(&self.left)
            .flat_map(|member| &member.holds)
            .map(|held| held.1)
            .collect();
        let distinct: BTreeSet<u32> = held.iter().copied().collect();
        assert_eq!(distinct.len(), held.len(), "a message is with two members");
        assert!(distinct.is_disjoint(&self.done));
        let group = self.group.as_ref().expect("made");
        let pending: Vec<u32> = group.pending().into_iter().copied().collect();
        assert!(pending.is_sorted());
        let expected: Vec<u32> = (0..self.published).filter(|message| !self.done.contains(message)).collect();
        assert_eq!(pending, expected, "nothing is lost");
        assert_eq!((group.len(), group.bytes()), (pending.len(), pending.len()));
        for waiting in pending.iter().filter(|message| !distinct.contains(message)) {
            let could = |member: &Member| {
                member.holds.len() < member.room && !(member.evens_only && waiting % 2 == 1)
            };
            assert!(!self.members.iter().any(could), "{waiting} waits although somebody has room");
        }
    }
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        1 => (0..4_usize, any::<bool>()).prop_map(|(room, evens_only)| Event::Join { room, evens_only }),
        1 => any::<usize>().prop_map(Event::Leave),
        6 => Just(Event::Publish),
        2 => (any::<usize>(), 0..6_usize).prop_map(|(member, room)| Event::Room { member, room }),
        6 => any::<usize>().prop_map(Event::Done),
        1 => any::<usize>().prop_map(Event::Lost),
    ]
}

proptest! {
    #[test]
    fn each_message_goes_to_one_member_and_none_is_lost(events in prop::collection::vec(event(), 0..200)) {
        let mut world = World::default();
        world.hand_out();
        for event in &events {
            world.apply(event);
            world.check();
        }
    }

    #[test]
    fn a_single_member_gets_everything_in_order(rooms in prop::collection::vec(0..5_usize, 1..50)) {
        let mut world = World::default();
        world.apply(&Event::Join { room: 0, evens_only: false });
        let mut order = Vec::new();
        for room in rooms {
            world.apply(&Event::Publish);
            world.apply(&Event::Publish);
            world.apply(&Event::Room { member: 0, room });
            for _ in 0..room {
                order.extend(world.members[0].holds.first().map(|held| held.1));
                world.apply(&Event::Done(0));
            }
        }
        prop_assert!(order.is_sorted());
    }

    #[test]
    fn members_with_room_take_turns(members in 1..10_usize, rounds in 1..20_usize) {
        let mut world = World::default();
        for _ in 0..members {
            world.apply(&Event::Join { room: usize::MAX, evens_only: false });
        }
        // One that is crowded takes nothing, and holds nobody up.
        world.apply(&Event::Join { room: 0, evens_only: false });
        for _ in 0..members * rounds {
            world.apply(&Event::Publish);
        }
        let shares: Vec<usize> = world.members.iter().map(|member| member.holds.len()).collect();
        prop_assert_eq!(&shares[..members], vec![rounds; members]);
        prop_assert_eq!(shares[members], 0);
    }
}

#[test]
fn what_comes_back_goes_before_what_waits() {
    let mut world = World::default();
    world.apply(&Event::Join { room: 2, evens_only: false });
    (0..4).for_each(|_| world.apply(&Event::Publish));
    world.members[0].room = 0;
    world.apply(&Event::Lost(0));
    world.apply(&Event::Join { room: 3, evens_only: false });
    let held: Vec<u32> = world.members[1].holds.iter().map(|held| held.1).collect();
    assert_eq!(held, [0, 1, 2]);
}
