//! Reads of resources of one kind are collected, so that many waiting steps share one call.

use std::collections::BTreeMap;
use std::slice;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::engine::error::{Error, Result};
use crate::engine::kind::{Found, Handle, Handlers, Kind, Scope};

/// Collects reads of resources of one kind in one scope, so that many waiting steps share one call.
#[derive(Default)]
pub(super) struct Pollers(Mutex<BTreeMap<(Arc<Scope>, &'static str), Queue>>);

type Answer = oneshot::Sender<Result<Option<Found>>>;

#[derive(Default)]
struct Queue {
    busy: bool,
    waiting: Vec<(Handle, Answer)>,
}

impl Pollers {
    pub async fn find(
        &self,
        scope: &Arc<Scope>,
        kind: &Arc<dyn Kind>,
        handlers: &Arc<dyn Handlers>,
        handle: &Handle,
    ) -> Result<Option<Found>> {
        if kind.finds_one_by_one() {
            return Ok(handlers.find(slice::from_ref(handle)).await?.into_iter().next().flatten());
        }
        let (sender, mut answer) = oneshot::channel();
        let leads = self.with(scope, kind.name(), |queue| {
            queue.waiting.push((handle.clone(), sender));
            !std::mem::replace(&mut queue.busy, true)
        });
        // A step that finds the queue idle reads for all steps in it. Steps that come during that read are served by
        // the next one.
        if !leads {
            return answer.await.unwrap_or_else(|_| Err(Error::bug("the shared read ended without an answer")));
        }
        loop {
            // Steps that become ready at the same moment share the read.
            tokio::task::yield_now().await;
            let batch = self.with(scope, kind.name(), |queue| {
                queue.busy = !queue.waiting.is_empty();
                std::mem::take(&mut queue.waiting)
            });
            if batch.is_empty() {
                return answer
                    .try_recv()
                    .unwrap_or_else(|_| Err(Error::bug("the shared read ended without an answer")));
            }
            let handles: Vec<Handle> = batch.iter().map(|(h, _)| h.clone()).collect();
            match handlers.find(&handles).await {
                Ok(found) => {
                    let mut found = found.into_iter();
                    for (_, answer) in batch {
                        let _ = answer.send(Ok(found.next().flatten()));
                    }
                }
                Err(error) => {
                    for (_, answer) in batch {
                        let _ = answer.send(Err(error.clone()));
                    }
                }
            }
        }
    }

    fn with<T>(&self, scope: &Arc<Scope>, kind: &'static str, change: impl FnOnce(&mut Queue) -> T) -> T {
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(queues.entry((scope.clone(), kind)).or_default())
    }
}
