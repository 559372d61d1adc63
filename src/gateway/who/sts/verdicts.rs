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
/// The accepted tokens of one principal. One principal's tokens must not use up the memory for those of others.
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

#[cfg(test)]
impl Verdicts {
    pub(super) fn flights(&self) -> usize {
        self.kept().flights.len()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::gateway::who::testing::start;

    fn digest(number: usize) -> Digest {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&number.to_le_bytes());
        digest
    }

    fn identity(role: &str, seconds: i64) -> Verdict {
        let proof = Proof::Aws { arn: format!("arn:aws:iam::123456789012:role/{role}"), session: None };
        Ok(Identity { name: role.to_owned(), proof, expires: Some(after(seconds)) })
    }

    fn after(seconds: i64) -> Timestamp {
        start() + SignedDuration::from_secs(seconds)
    }

    #[test]
    fn a_flood_of_refused_tokens_displaces_no_accepted_one_and_has_a_limit() {
        let verdicts = Verdicts::default();
        verdicts.keep(digest(0), &identity("Blue", 900), start());
        for number in 1..=ENTRIES + 50 {
            verdicts.keep(digest(number), &Err(Refused::AwsRefused), start());
        }
        assert_eq!(verdicts.get(&digest(0), start()), Some(identity("Blue", 900)));
        assert_eq!(verdicts.get(&digest(50), start()), None);
        assert_eq!(verdicts.get(&digest(51), start()), Some(Err(Refused::AwsRefused)));
        let kept = verdicts.kept();
        assert_eq!((kept.refused.len(), kept.order.len(), kept.accepted.len()), (ENTRIES, ENTRIES, 1));
    }

    #[test]
    fn a_flood_of_one_principals_tokens_displaces_only_its_own() {
        let verdicts = Verdicts::default();
        verdicts.keep(digest(0), &identity("Green", 800), start());
        for number in 1..=OF_ONE + 20 {
            verdicts.keep(digest(number), &identity("Blue", 900 + number as i64), start());
        }
        assert!(verdicts.get(&digest(0), start()).is_some());
        assert_eq!(verdicts.kept().accepted.len(), OF_ONE + 1);
        assert!(verdicts.get(&digest(20), start()).is_none());
        assert!(verdicts.get(&digest(21), start()).is_some());
    }

    #[test]
    fn a_full_memory_takes_new_tokens_only_when_old_ones_expire() {
        let verdicts = Verdicts::default();
        let one = Arc::new(identity("Green", 900).unwrap());
        let full = (0..ENTRIES).map(|number| (digest(number), (one.clone(), after(900))));
        verdicts.kept().accepted.extend(full);
        verdicts.keep(digest(ENTRIES), &identity("Blue", 900), start());
        assert_eq!(verdicts.get(&digest(ENTRIES), start()), None);
        assert!(verdicts.get(&digest(0), start()).is_some());
        verdicts.keep(digest(ENTRIES), &identity("Blue", 1800), after(900));
        assert!(verdicts.get(&digest(ENTRIES), after(900)).is_some());
        assert_eq!(verdicts.kept().accepted.len(), 1);
    }

    #[test]
    fn verdicts_end() {
        let verdicts = Verdicts::default();
        verdicts.keep(digest(1), &identity("Blue", 900), start());
        verdicts.keep(digest(2), &Err(Refused::AwsRefused), start());
        verdicts.keep(digest(3), &Err(Refused::AwsUnavailable), start());
        let known = |seconds| [1, 2, 3].map(|number| verdicts.get(&digest(number), after(seconds)).is_some());
        assert_eq!(known(0), [true, true, false]);
        assert_eq!(known(29), [true, true, false]);
        assert_eq!(known(30), [true, false, false]);
        assert_eq!(known(899), [true, false, false]);
        assert_eq!(known(900), [false, false, false]);
    }
}
