//! Verified tokens are remembered for a moment, because a signature costs more than everything else that the gateway
//! does with a read.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};

use super::who::{Authenticators, Identity, Proof, Refused};
use crate::engine::clock::Clock;

/// How long a verified token is remembered. API servers remember theirs as long
/// (`k8s.io/kubernetes/pkg/kubeapiserver/authenticator/config.go`, `TokenSuccessCacheTTL`).
const REMEMBERED: Duration = Duration::from_secs(10);
const ENTRIES: usize = 10_000;

/// Verified tokens, by their SHA-256. The tokens themselves aren't kept.
#[derive(Default)]
pub struct Recent(Mutex<HashMap<[u8; 32], Entry>>);

/// An identity, and how long it is remembered, on the gateway's clock.
type Entry = (Arc<Identity>, Duration);

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
        if let Some((identity, until)) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&digest)
            && now < *until
        {
            return Ok(identity.clone());
        }
        let identity = Arc::new(who.authenticate(authorization, certificate).await?);
        // AWS's verdicts are remembered by `who`, and a certificate is verified with its connection.
        if let (Proof::Token { .. }, Some(expires)) = (&identity.proof, identity.expires) {
            let left = expires.duration_since(Clock::timestamp());
            let left = Duration::try_from(left).unwrap_or_default().min(REMEMBERED);
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() >= ENTRIES {
                kept.retain(|_, (_, until)| now < *until);
            }
            // A full memory stays as it is: a flood must not displace the tokens of others.
            if kept.len() < ENTRIES {
                kept.insert(digest, (identity.clone(), now + left));
            }
        }
        Ok(identity)
    }
}
