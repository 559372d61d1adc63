//! Verified tokens are remembered for a moment, because a signature costs more than everything else that the gateway
//! does with a read.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};

use super::who::{Authenticators, Identity, Proof, Refused};
use crate::engine::clock::Clock;

/// How long a verified token is remembered. API servers remember theirs as long
/// (`k8s.io/kubernetes/pkg/kubeapiserver/authenticator/config.go`, `TokenSuccessCacheTTL`).
const REMEMBERED: Duration = Duration::from_secs(10);
const ENTRIES: usize = 10_000;

/// So long before a token is forgotten, one request verifies it again, while the others go on.
const AHEAD: Duration = Duration::from_secs(2);

/// Verified tokens, by their SHA-256. The tokens themselves aren't kept.
#[derive(Default)]
pub struct Recent(Mutex<HashMap<[u8; 32], Entry>>);

struct Entry {
    identity: Arc<Identity>,
    /// When the token is forgotten, on the gateway's clock.
    until: Duration,
    /// Whether a request verifies it again.
    renewing: bool,
}

impl Recent {
    /// The identity of a request. See [`Authenticators::authenticate`].
    pub async fn identity(
        &self,
        who: &Authenticators,
        authorization: &[&[u8]],
        certificate: Option<&CertificateDer<'_>>,
        clock: &Clock,
    ) -> Result<Arc<Identity>, Refused> {
        let [header] = authorization else { return who.authenticate(authorization, certificate).await.map(Arc::new) };
        let (digest, now) = (Sha256::digest(header).into(), clock.elapsed());
        if let Some(identity) = self.known(&digest, now) {
            return Ok(identity);
        }
        let identity = match who.authenticate(authorization, certificate).await {
            Ok(identity) => Arc::new(identity),
            Err(refused) => {
                // A token that isn't valid any more is nobody's.
                self.lock().remove(&digest);
                return Err(refused);
            }
        };
        // AWS's verdicts are remembered by `who`, and a certificate is verified with its connection.
        if let (Proof::Token { .. }, Some(expires)) = (&identity.proof, identity.expires) {
            let left = expires.duration_since(Clock::timestamp());
            let left = Duration::try_from(left).unwrap_or_default().min(REMEMBERED);
            let mut kept = self.lock();
            if kept.len() >= ENTRIES {
                kept.retain(|_, entry| now < entry.until);
            }
            // A full memory stays as it is: a flood must not displace the tokens of others.
            if kept.len() < ENTRIES || kept.contains_key(&digest) {
                kept.insert(digest, Entry { identity: identity.clone(), until: now + left, renewing: false });
            }
        }
        Ok(identity)
    }

    /// The identity of a remembered token, unless it is for this request to verify it.
    fn known(&self, digest: &[u8; 32], now: Duration) -> Option<Arc<Identity>> {
        let mut kept = self.lock();
        let entry = kept.get_mut(digest).filter(|entry| now < entry.until)?;
        if now + AHEAD >= entry.until && !entry.renewing {
            entry.renewing = true;
            return None;
        }
        Some(entry.identity.clone())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
