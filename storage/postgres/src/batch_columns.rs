//! A batch as arrays, one a column.
//!
//! Messages are in the order of their tenants, and of each tenant those that wake devices come first, the
//! urgent ones before the others, so that an outbox row is a slice of the arrays. A message named like an earlier one of the batch is left out.

use std::cmp::Reverse;
use std::collections::HashMap;

use sotto_model::Urgency;
use sotto_storage::message_log::{Append, Placed, RetainChange};
use sotto_storage::publication_key::PublicationKey;
use uuid::Uuid;

use crate::column::{self, bigint};
use crate::fault::Fault;
use crate::limits::OUTBOX_ROW_MESSAGES_MAX;

pub(crate) struct BatchColumns<'b> {
    /// Sorted: counters are locked in this order.
    pub(crate) tenants: Vec<Uuid>,
    pub(crate) messages_of_tenant: Vec<i64>,
    /// Which of the tenants a message belongs to, from 1.
    pub(crate) slots: Vec<i16>,
    /// The message's place among those of its tenant, from 1, in the order of arrival.
    pub(crate) ordinals: Vec<i32>,
    pub(crate) topic_ids: Vec<i64>,
    pub(crate) message_ids: Vec<Uuid>,
    pub(crate) senders: Vec<Uuid>,
    pub(crate) flags: Vec<i16>,
    pub(crate) expiries: Vec<Option<i64>>,
    pub(crate) sealed: Vec<&'b [u8]>,
    pub(crate) any_retained: bool,
    pub(crate) publishers: Vec<i64>,
    pub(crate) packet_ids: Vec<i32>,
    /// Kept wills that are published.
    pub(crate) wills: Vec<Uuid>,
    /// Outbox rows: the tenant's slot, the first and the last of its messages, from 1, and how urgent all of them
    /// are.
    pub(crate) outbox_slots: Vec<i16>,
    pub(crate) outbox_firsts: Vec<i32>,
    pub(crate) outbox_lasts: Vec<i32>,
    pub(crate) outbox_urgencies: Vec<i16>,
    /// Messages that name themselves, from 1, and by what they are remembered.
    pub(crate) named: Vec<i32>,
    pub(crate) names: Vec<Uuid>,
    /// Where in the arrays each message of the batch is, in the batch's order, from 0.
    rows: Vec<Row>,
}

#[derive(Clone, Copy)]
enum Row {
    At(usize),
    /// It is an earlier message of the batch, published again.
    SameAs(usize),
}

/// Bits of a message's flags, as the statement reads them; bits 0 and 1 hold the QoS.
const RETAIN: i16 = 4;
const WAKES: i16 = 8;
/// It clears its topic's retained message.
const CLEARS: i16 = 16;
/// It wakes without urgency.
const LOW: i16 = 32;

impl<'b> BatchColumns<'b> {
    pub(crate) fn of(appends: &'b [Append], topic_ids: &[i64]) -> Self {
        let names: Vec<Option<PublicationKey>> = appends.iter().map(PublicationKey::of).collect();
        let mut first_of_name = HashMap::new();
        let again: Vec<Option<usize>> = names
            .iter()
            .enumerate()
            .map(|(index, name)| {
                let first = *first_of_name.entry((*name)?).or_insert(index);
                (first != index).then_some(first)
            })
            .collect();
        let mut columns = Self::empty(appends);
        let mut order = Vec::with_capacity(appends.len());
        for (index, append) in appends.iter().enumerate().filter(|(index, _)| again[*index].is_none()) {
            let slot =
                columns.tenants.binary_search(&append.sealed.tenant().0).expect("every tenant is there");
            columns.messages_of_tenant[slot] += 1;
            order.push((slot, Reverse(append.wakes), index, columns.messages_of_tenant[slot]));
        }
        order.sort_unstable();

        let mut row_of = vec![0; appends.len()];
        for (row, (slot, _, index, ordinal)) in order.into_iter().enumerate() {
            row_of[index] = row;
            columns.push(&appends[index], slot, ordinal, topic_ids[index]);
            if let Some(PublicationKey(name)) = names[index] {
                columns.named.push(number(row + 1));
                columns.names.push(name);
            }
        }
        columns.rows = again
            .iter()
            .zip(&row_of)
            .map(|(again, row)| again.map_or(Row::At(*row), |first| Row::SameAs(row_of[first])))
            .collect();
        columns
    }

    fn empty(appends: &[Append]) -> Self {
        let count = appends.len();
        let mut tenants: Vec<Uuid> = appends.iter().map(|append| append.sealed.tenant().0).collect();
        tenants.sort_unstable();
        tenants.dedup();
        // Of every message, those left out too: each PUBLISH is an exchange of its own, and so is each will.
        let (publishers, packet_ids) = appends
            .iter()
            .filter_map(|append| append.exactly_once)
            .map(|(session, packet_id)| (bigint(session.0), i32::from(packet_id.0.get())))
            .unzip();
        Self {
            messages_of_tenant: vec![0; tenants.len()],
            tenants,
            slots: Vec::with_capacity(count),
            ordinals: Vec::with_capacity(count),
            topic_ids: Vec::with_capacity(count),
            message_ids: Vec::with_capacity(count),
            senders: Vec::with_capacity(count),
            flags: Vec::with_capacity(count),
            expiries: Vec::with_capacity(count),
            sealed: Vec::with_capacity(count),
            any_retained: false,
            publishers,
            packet_ids,
            wills: appends.iter().filter_map(|append| append.will).map(|will| will.0).collect(),
            outbox_slots: Vec::new(),
            outbox_firsts: Vec::new(),
            outbox_lasts: Vec::new(),
            outbox_urgencies: Vec::new(),
            named: Vec::new(),
            names: Vec::new(),
            rows: Vec::new(),
        }
    }

    fn push(&mut self, append: &'b Append, slot: usize, ordinal: i64, topic_id: i64) {
        let sealed = &append.sealed;
        let slot = i16::try_from(slot + 1).expect("fewer tenants than records in a batch");
        let mut flags = append.qos as i16;
        match append.retain {
            RetainChange::Keep => {}
            RetainChange::Set => flags |= RETAIN,
            RetainChange::Clear => flags |= RETAIN | CLEARS,
        }
        self.any_retained |= append.retain != RetainChange::Keep;
        match append.wakes {
            None => {}
            Some(Urgency::Low) => flags |= WAKES | LOW,
            Some(Urgency::High) => flags |= WAKES,
        }
        if let Some(urgency) = append.wakes {
            self.post(slot, urgency);
        }
        self.slots.push(slot);
        self.ordinals.push(i32::try_from(ordinal).expect("a batch is bounded"));
        self.topic_ids.push(topic_id);
        self.message_ids.push(sealed.message_id().0);
        self.senders.push(sealed.sender().0);
        self.flags.push(flags);
        self.expiries.push(append.expires_at.map(|at| bigint(at.0)));
        self.sealed.push(sealed.bytes());
    }

    /// Adds the next message to the last outbox row, or begins another.
    fn post(&mut self, slot: i16, urgency: Urgency) {
        let place = number(self.slots.len() + 1);
        let row = (slot, urgency as i16);
        let last = self.outbox_slots.last().copied().zip(self.outbox_urgencies.last().copied());
        let has_room = |first: &i32| place - *first < number(OUTBOX_ROW_MESSAGES_MAX);
        if last == Some(row) && self.outbox_firsts.last().is_some_and(has_room) {
            *self.outbox_lasts.last_mut().expect("as many as firsts") = place;
        } else {
            self.outbox_slots.push(slot);
            self.outbox_firsts.push(place);
            self.outbox_lasts.push(place);
            self.outbox_urgencies.push(row.1);
        }
    }

    /// `bases`: where each tenant's log ended before. `before`: the rows that had been committed before, from
    /// 1, and where.
    pub(crate) fn placed(&self, bases: &[i64], before: &[(i32, i64)]) -> Result<Vec<Placed>, Fault> {
        if bases.len() != self.tenants.len() {
            return Err(Fault::Inconsistent("a counter did not take part in the batch"));
        }
        let before: HashMap<i32, i64> = before.iter().copied().collect();
        let place = |row: usize| match before.get(&number(row + 1)) {
            Some(offset) => column::offset(*offset).map(Placed::Before),
            None => column::offset(self.offset(row, bases)).map(Placed::Now),
        };
        self.rows
            .iter()
            .map(|row| match *row {
                Row::At(row) => place(row),
                Row::SameAs(row) => place(row).map(|first| Placed::Before(first.offset())),
            })
            .collect()
    }

    /// What the row's offset is where it was not committed before.
    pub(crate) fn offset(&self, row: usize, bases: &[i64]) -> i64 {
        let slot = usize::try_from(self.slots[row] - 1).expect("slots count from 1");
        bases[slot] + i64::from(self.ordinals[row])
    }
}

fn number(count: usize) -> i32 {
    i32::try_from(count).expect("a batch is bounded")
}
