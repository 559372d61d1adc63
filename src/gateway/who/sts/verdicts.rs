//! Verdicts of STS about tokens, by the tokens' SHA-256. The tokens themselves aren't kept.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::OnceCell;

use super::super::refused::Refused;
use super::super::{Identity, Proof};

/// The entries of each kind.
const ENTRIES: usize = 10_000;
/// The accepted tokens of one principal. Somebody who signs token after token must not use up the memory for others.
const OF_ONE: usize = ENTRIES / 10;

/// How long a refusal is remembered. New credentials aren't known everywhere at once, so a refused token may become
/// good.
const REFUSED: SignedDuration = SignedDuration::from_secs(30);

pub(super) type Digest = [u8; 32];
type Verdict = Result<Identity, Refused>;

/// Accepted and refused tokens are kept apart, so that a flood of refused ones displaces only its like.
#[derive(Default)]
pub(super) struct Verdicts(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    accepted: HashMap<Digest, (Arc<Identity>, Timestamp)>,
    refused: HashMap<Digest, (Refused, Timestamp)>,
    /// The refused tokens, the oldest first.
    order: VecDeque<Digest>,
    flights: HashMap<Digest, Arc<OnceCell<Verdict>>>,
}

/// A question to STS that requests with the same token share.
pub(super) struct Flight<'a> {
    verdicts: &'a Verdicts,
    digest: Digest,
    cell: Arc<OnceCell<Verdict>>,
}

impl Verdicts {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The running question about a token, or a new one.
    pub(super) fn flight(&self, digest: Digest) -> Flight<'_> {
        let cell = self.kept().flights.entry(digest).or_default().clone();
        Flight { verdicts: self, digest, cell }
    }

    /// What STS has said. `None` if it wasn't asked, or too long ago.
    pub(super) fn get(&self, digest: &Digest, now: Timestamp) -> Option<Verdict> {
        let kept = self.kept();
        let accepted = kept.accepted.get(digest).filter(|(_, until)| now < *until);
        let refused = kept.refused.get(digest).filter(|(_, until)| now < *until);
        accepted.map(|(identity, _)| Ok(Identity::clone(identity))).or(refused.map(|(why, _)| Err(*why)))
    }

    /// Keeps a verdict for as long as it holds.
    pub(super) fn keep(&self, digest: Digest, verdict: &Verdict, now: Timestamp) {
        let mut kept = self.kept();
        match verdict {
            Ok(identity) => kept.accept(digest, identity, now),
            // STS may answer the next time.
            Err(why) if why.is_temporary() => {}
            Err(why) => kept.refuse(digest, *why, now),
        }
    }
}

impl Kept {
    fn accept(&mut self, digest: Digest, identity: &Identity, now: Timestamp) {
        let Some(until) = identity.expires else { return };
        if self.accepted.len() >= ENTRIES {
            self.accepted.retain(|_, (_, until)| now < *until);
        }
        let same: Vec<_> = self.accepted.iter().filter(|(_, (other, _))| arn(other) == arn(identity)).collect();
        if same.len() >= OF_ONE {
            let oldest = same.iter().min_by_key(|(_, (_, until))| *until).map(|(digest, _)| **digest);
            oldest.and_then(|oldest| self.accepted.remove(&oldest));
        }
        // A full memory stays as it is: a flood must not displace the tokens of others.
        if self.accepted.len() < ENTRIES {
            self.accepted.insert(digest, (Arc::new(identity.clone()), until));
        }
    }

    fn refuse(&mut self, digest: Digest, why: Refused, now: Timestamp) {
        let until = now.saturating_add(REFUSED).unwrap_or(now);
        while let Some(oldest) = self.order.front() {
            let over = self.refused.get(oldest).is_none_or(|(_, until)| *until <= now);
            if !over && self.order.len() < ENTRIES {
                break;
            }
            self.refused.remove(oldest);
            self.order.pop_front();
        }
        if self.refused.insert(digest, (why, until)).is_none() {
            self.order.push_back(digest);
        }
    }
}

fn arn(identity: &Identity) -> Option<&str> {
    match &identity.proof {
        Proof::Aws { arn, .. } => Some(arn),
        _ => None,
    }
}

impl Flight<'_> {
    /// The shared verdict. If the request that asks goes away, another one asks.
    pub(super) async fn verdict<F: Future<Output = Verdict>>(&self, ask: impl FnOnce() -> F) -> Verdict {
        self.cell.get_or_init(ask).await.clone()
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        if let Entry::Occupied(entry) = self.verdicts.kept().flights.entry(self.digest)
            && Arc::ptr_eq(entry.get(), &self.cell)
            // This flight's and the map's.
            && Arc::strong_count(&self.cell) <= 2
        {
            entry.remove();
        }
    }
}
