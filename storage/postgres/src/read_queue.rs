//! Reads of the log that wait for a connection go together, many sessions in one query.
//!
//! ```text
//! read ─▶ queue ─▶ whoever gets a connection takes what waits, its own read among it or not,
//!                  asks for all of it at once, and hands each its page
//! ```
//!
//! Where a connection is free, a read goes alone and waits for nothing. In a storm of sessions that resume,
//! the reads pile up behind the few connections, and each query serves as many as it may.

use std::collections::VecDeque;

use parking_lot::Mutex;
use sotto_storage::StoreError;
use sotto_storage::message_log::Page;
use tokio::sync::oneshot;

use crate::lane::{Lane, within};
use crate::limits::{READ_TURNS_MAX, READS_PER_QUERY_MAX};
use crate::log_read::{self, ReadRequest};
use crate::topics::TopicIds;

const OPERATION: &str = "read log";

#[derive(Default)]
pub(crate) struct ReadQueue {
    /// Locked for a push or to take a batch off, never across an await. As many entries as there are callers,
    /// and those that have gone.
    waiting: Mutex<VecDeque<Waiting>>,
}

struct Waiting {
    request: ReadRequest,
    answer: oneshot::Sender<Result<Page, StoreError>>,
}

impl ReadQueue {
    pub(crate) async fn read(
        &self,
        lane: &Lane,
        topics: &TopicIds,
        request: ReadRequest,
    ) -> Result<Page, StoreError> {
        // A caller that goes while it asks for others leaves them unanswered: they ask again.
        for _ in 0..READ_TURNS_MAX {
            let (answer, mut answered) = oneshot::channel();
            self.waiting.lock().push_back(Waiting { request: request.clone(), answer });
            loop {
                let mut held = tokio::select! {
                    biased;
                    page = &mut answered => match page {
                        Ok(page) => return page,
                        Err(_) => break,
                    },
                    held = lane.hold(OPERATION) => held?,
                };
                let batch = self.take();
                if batch.is_empty() {
                    // Somebody else asks for this one.
                    held.settle(Ok(()))?;
                    match answered.await {
                        Ok(page) => return page,
                        Err(_) => break,
                    }
                }
                let (requests, answers): (Vec<ReadRequest>, Vec<_>) =
                    batch.into_iter().map(|waiting| (waiting.request, waiting.answer)).unzip();
                let result = within(log_read::read_many(held.connection(), topics, &requests)).await;
                match held.settle(result) {
                    Ok(pages) => {
                        for (answer, page) in answers.into_iter().zip(pages) {
                            // Who has gone does not mind.
                            let _ = answer.send(page);
                        }
                    }
                    // What one of them stumbles over is not the others' fault.
                    Err(error) if requests.len() > 1 && !error.is_transient() => {
                        for (request, answer) in requests.into_iter().zip(answers) {
                            let _ = answer.send(read_one(lane, topics, request).await);
                        }
                    }
                    Err(error) => {
                        for answer in answers {
                            let _ = answer.send(Err(error.clone()));
                        }
                    }
                }
            }
        }
        Err(StoreError::Unavailable { operation: OPERATION, code: "left unanswered".into() })
    }

    /// The reads that have waited longest and are still wanted.
    fn take(&self) -> Vec<Waiting> {
        let mut waiting = self.waiting.lock();
        let mut batch = Vec::new();
        while batch.len() < READS_PER_QUERY_MAX {
            let Some(next) = waiting.pop_front() else { break };
            if !next.answer.is_closed() {
                batch.push(next);
            }
        }
        batch
    }
}

async fn read_one(lane: &Lane, topics: &TopicIds, request: ReadRequest) -> Result<Page, StoreError> {
    let mut held = lane.hold(OPERATION).await?;
    let result = within(log_read::read_many(held.connection(), topics, &[request])).await;
    held.settle(result)?.pop().expect("a page for each request")
}
