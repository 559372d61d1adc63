//! Data that the steps of a run share: slots, reads, and the state of each cluster's API server.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::pollers::Pollers;
use crate::engine::error::{Class, Error};
use crate::engine::slots::Slots;

/// The state of a cluster's API server. Until the server has answered one step, no other step tries it, because each
/// attempt may take long.
enum Contact {
    Tried,
    Open,
    Closed(Error),
}

/// True if the cluster's API server can't be reached or denies access.
pub(super) fn is_closed(error: &Error) -> bool {
    matches!(error.class, Class::Unreachable | Class::Denied)
}

/// Data shared by the steps of a run.
pub(super) struct Shared {
    pub pollers: Pollers,
    pub slots: Arc<Slots>,
    /// By cluster name.
    contacts: Mutex<BTreeMap<String, Contact>>,
}

impl Shared {
    pub fn new(parallelism: usize) -> Arc<Self> {
        Arc::new(Self { pollers: Pollers::default(), slots: Slots::new(parallelism), contacts: Mutex::default() })
    }

    fn contacts(&self) -> MutexGuard<'_, BTreeMap<String, Contact>> {
        self.contacts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True if a step may call `cluster`: no step has tried it yet, or it has answered.
    pub fn may_try(&self, host: &str) -> bool {
        !matches!(self.contacts().get(host), Some(Contact::Tried | Contact::Closed(_)))
    }

    /// Records that a step calls `cluster`. If no step has tried it before, this is the only one for now.
    pub fn tries(&self, host: &str) {
        self.contacts().entry(host.to_owned()).or_insert(Contact::Tried);
    }

    /// Records that `cluster` has answered a step.
    pub fn heard(&self, host: &str) {
        if let Some(contact @ Contact::Tried) = self.contacts().get_mut(host) {
            *contact = Contact::Open;
            self.slots.news.notify_one();
        }
    }

    /// Updates the state of a step's cluster after the step. Returns the error if the cluster is closed to us now.
    pub fn learn(&self, host: &str, error: Option<&Error>) -> Option<Error> {
        let mut contacts = self.contacts();
        let contact = contacts.get_mut(host)?;
        *contact = match (error, &contact) {
            (Some(e), Contact::Tried) if is_closed(e) => Contact::Closed(e.clone()),
            // One refusal may be about one object only.
            (Some(e), _) if e.class == Class::Unreachable => Contact::Closed(e.clone()),
            _ => Contact::Open,
        };
        match contact {
            Contact::Closed(error) => Some(error.clone()),
            _ => None,
        }
    }
}
