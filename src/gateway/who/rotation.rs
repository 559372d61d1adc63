//! Fetches the keys of an issuer, and fetches them again, because issuers rotate keys.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL};
use http::{HeaderValue, StatusCode, Uri};
use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio::sync::watch;

use super::http::{Http, is_loopback};
use super::keys::KeySet;
use super::refused::Refused;
use super::time::Time;

/// Keys of this age are fetched again.
const FRESH: Duration = Duration::from_secs(10 * 60);
/// Without an attempt for this long, a request waits for fresh keys: nobody asked for a while, and an issuer may have
/// revoked a key.
const IDLE: Duration = Duration::from_secs(20 * 60);
/// Keys of this age aren't used, if they can't be fetched again.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// The time between two attempts. Tokens with invented key ids must not make the gateway flood an issuer.
const PAUSE: Duration = Duration::from_secs(10);
/// The size of a document.
const SIZE: usize = 1024 * 1024;

/// The place of an issuer's keys.
pub(super) enum Origin {
    /// A file with a JWKS.
    File(PathBuf),
    /// OpenID Connect Discovery 1.0, with the issuer's URL.
    Discovery { issuer: String, http: Box<Http> },
}

/// The keys of one issuer.
pub(super) struct Rotation {
    origin: Origin,
    time: Time,
    held: RwLock<Option<Arc<Held>>>,
    attempts: Mutex<Attempts>,
}

/// Keys, and when they were fetched.
pub(super) struct Held {
    pub(super) keys: KeySet,
    at: Duration,
}

#[derive(Default)]
struct Attempts {
    last: Option<Duration>,
    /// Closed when the running attempt ends.
    flight: Option<watch::Receiver<()>>,
    /// `None` if the last attempt succeeded.
    failure: Option<&'static str>,
}

/// OpenID Connect Discovery 1.0, section 3.
#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    jwks_uri: String,
}

impl Rotation {
    pub(super) fn new(origin: Origin, time: Time) -> Arc<Self> {
        Arc::new(Self { origin, time, held: RwLock::default(), attempts: Mutex::default() })
    }

    /// The keys to verify with. Old keys are fetched again in the background.
    pub(super) async fn keys(self: &Arc<Self>) -> Result<Arc<Held>, Refused> {
        match self.held() {
            None => self.refresh().await,
            Some(held) if self.age(&held) < FRESH => return Ok(held),
            // Waits only after an idle time. While an issuer is down, a request must not wait for its time limit.
            Some(held) if self.idle() || self.age(&held) >= KEPT => self.refresh().await,
            Some(_) => drop(self.attempt()),
        }
        self.held().filter(|held| self.age(held) < KEPT).ok_or(Refused::KeysUnavailable)
    }

    /// Other keys than `than`, for a token that none of those verifies. `None` if there are no other keys yet.
    pub(super) async fn newer(self: &Arc<Self>, than: &Arc<Held>) -> Option<Arc<Held>> {
        let newer = || self.held().filter(|held| !Arc::ptr_eq(held, than));
        if let Some(held) = newer() {
            return Some(held);
        }
        self.refresh().await;
        newer()
    }

    /// Fetches the keys, or waits until a running attempt ends. Does nothing shortly after an attempt.
    pub(super) async fn refresh(self: &Arc<Self>) {
        if let Some(mut flight) = self.attempt() {
            // Nothing is ever sent: the channel closes at the end of the attempt, whatever its outcome.
            let _ = flight.changed().await;
        }
    }

    /// Why the last attempt failed. `None` if it didn't.
    pub(super) fn failure(&self) -> Option<&'static str> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner).failure
    }

    fn held(&self) -> Option<Arc<Held>> {
        self.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn age(&self, held: &Held) -> Duration {
        self.time.elapsed().saturating_sub(held.at)
    }

    fn idle(&self) -> bool {
        let attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        attempts.last.is_none_or(|last| self.time.elapsed().saturating_sub(last) >= IDLE)
    }

    /// The running attempt, or a new one. `None` shortly after an attempt. An attempt is a task of its own, so that a
    /// client which hangs up doesn't end it for all others.
    fn attempt(self: &Arc<Self>) -> Option<watch::Receiver<()>> {
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = attempts.flight.as_ref().filter(|flight| flight.has_changed().is_ok()) {
            return Some(flight.clone());
        }
        let now = self.time.elapsed();
        if attempts.last.is_some_and(|last| now.saturating_sub(last) < PAUSE) {
            return None;
        }
        let (done, flight) = watch::channel(());
        attempts.last = Some(now);
        attempts.flight = Some(flight.clone());
        let this = self.clone();
        tokio::spawn(async move {
            this.fetch().await;
            drop(done);
        });
        Some(flight)
    }

    async fn fetch(&self) {
        let at = self.time.elapsed();
        let document = match &self.origin {
            Origin::File(path) => read(path).await,
            Origin::Discovery { issuer, http } => {
                let both = self.time.within(super::http::LIMIT, discover(issuer, http)).await;
                both.unwrap_or(Err("the server didn't answer in time"))
            }
        };
        let keys = document.and_then(|document| KeySet::read(&document).ok_or("the answer isn't a JWKS"));
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        match keys {
            Ok(keys) => {
                attempts.failure = keys.is_empty().then_some("the JWKS has no usable key");
                *self.held.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(Held { keys, at }));
            }
            Err(why) => attempts.failure = Some(why),
        }
    }
}

async fn read(path: &std::path::Path) -> Result<Bytes, &'static str> {
    let file = tokio::fs::File::open(path).await.map_err(|_| "the file can't be opened")?;
    let mut text = Vec::new();
    let read = file.take(SIZE as u64 + 1).read_to_end(&mut text).await;
    read.map_err(|_| "the file can't be read")?;
    if text.len() > SIZE { Err("the file is too large") } else { Ok(text.into()) }
}

async fn discover(issuer: &str, http: &Http) -> Result<Bytes, &'static str> {
    let get = async |uri: Uri| {
        // A cache on the way may hold keys from before a rotation (coreos/go-oidc, pull request 485).
        let headers = [
            (ACCEPT, HeaderValue::from_static("application/json")),
            (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        ];
        match http.get(uri, headers, SIZE).await {
            Ok((StatusCode::OK, body)) => Ok(body),
            Ok(_) => Err("the server answers with another status than 200"),
            Err(failure) => Err(failure.text()),
        }
    };
    // OpenID Connect Discovery 1.0, 4: a trailing slash is removed first.
    let address = format!("{}/.well-known/openid-configuration", issuer.strip_suffix('/').unwrap_or(issuer));
    let address: Uri = address.parse().map_err(|_| "the issuer isn't a URL")?;
    let local = is_loopback(&address);
    let metadata: Metadata =
        serde_json::from_slice(&get(address).await?).map_err(|_| "the discovery document can't be read")?;
    // OpenID Connect Discovery 1.0, 4.3: otherwise one tenant of a provider can answer for another.
    if metadata.issuer != issuer {
        return Err("the discovery document is of another issuer");
    }
    let keys: Uri = metadata.jwks_uri.parse().map_err(|_| "the discovery document's jwks_uri isn't a URL")?;
    // A provider elsewhere must not make the gateway ask a server on the gateway's own computer.
    if is_loopback(&keys) && !local {
        return Err("the discovery document's jwks_uri is on this computer");
    }
    get(keys).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::engine::clock::Hand;
    use crate::gateway::who::http::Trust;
    use crate::gateway::who::keys::{Algorithm, Outcome};
    use crate::gateway::who::testing::{Provider, Signer, answer, at, pass};

    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;

    struct Case {
        hand: Hand,
        provider: Provider,
        rotation: Arc<Rotation>,
    }

    async fn case(signers: &[&Signer]) -> Case {
        let (hand, provider) = (Hand::default(), Provider::start(signers).await);
        let http = Box::new(Http::new(&Trust::Nobody, at(&hand)).unwrap());
        let rotation = Rotation::new(Origin::Discovery { issuer: provider.issuer(), http }, at(&hand));
        Case { hand, provider, rotation }
    }

    fn verifies(held: &Held, signer: &Signer) -> bool {
        let signature = signer.signature(b"m");
        held.keys.verify(signer.id(), Algorithm::Es256, b"m", &signature) == Outcome::Verified
    }

    impl Case {
        fn pass(&self, seconds: u64) {
            pass(&self.hand, seconds);
        }

        /// Waits for the attempt that runs in the background.
        async fn settle(&self) {
            let flight = self.rotation.attempts.lock().unwrap().flight.clone();
            let _ = flight.unwrap().changed().await;
        }
    }

    #[tokio::test]
    async fn fresh_keys_are_not_fetched_again() {
        let signer = Signer::ec("a");
        let case = case(&[&signer]).await;
        for _ in 0..3 {
            assert!(verifies(&case.rotation.keys().await.unwrap(), &signer));
            case.pass(3 * MINUTE);
        }
        assert_eq!(case.provider.fetches(), 1);
        assert_eq!(case.rotation.failure(), None);
    }

    #[tokio::test]
    async fn old_keys_are_used_while_new_ones_are_fetched_in_the_background() {
        let (old, new) = (Signer::ec("old"), Signer::ec("new"));
        let case = case(&[&old]).await;
        case.rotation.keys().await.unwrap();
        case.provider.publish(&[&new]);
        case.pass(11 * MINUTE);
        assert!(verifies(&case.rotation.keys().await.unwrap(), &old));
        case.settle().await;
        let held = case.rotation.keys().await.unwrap();
        assert!(verifies(&held, &new) && !verifies(&held, &old), "a key that was removed is no longer valid");
        assert_eq!(case.provider.fetches(), 2);
    }

    #[tokio::test]
    async fn after_an_idle_time_a_request_waits_for_keys_so_that_a_revoked_one_is_not_used() {
        let (old, new) = (Signer::ec("old"), Signer::ec("new"));
        let case = case(&[&old]).await;
        case.rotation.keys().await.unwrap();
        case.provider.publish(&[&new]);
        case.pass(3 * HOUR);
        let held = case.rotation.keys().await.unwrap();
        assert!(verifies(&held, &new) && !verifies(&held, &old));
    }

    #[tokio::test]
    async fn unknown_ids_fetch_at_most_once_in_ten_seconds() {
        let (old, new) = (Signer::ec("old"), Signer::ec("new"));
        let case = case(&[&old]).await;
        let first = case.rotation.keys().await.unwrap();
        case.provider.publish(&[&new]);
        case.pass(9);
        assert!(case.rotation.newer(&first).await.is_none());
        assert_eq!(case.provider.fetches(), 1);
        case.pass(1);
        let second = case.rotation.newer(&first).await.unwrap();
        assert!(verifies(&second, &new));
        for _ in 0..100 {
            assert!(case.rotation.newer(&second).await.is_none());
        }
        assert!(case.rotation.newer(&first).await.is_some(), "keys of another request's fetch");
        assert_eq!(case.provider.fetches(), 2);
    }

    #[tokio::test]
    async fn requests_at_one_time_share_a_fetch_even_if_the_first_hangs_up() {
        let signer = Signer::ec("a");
        let case = case(&[&signer]).await;
        {
            let mut first = Box::pin(case.rotation.keys());
            assert!(futures::poll!(first.as_mut()).is_pending());
        }
        let all = futures::future::join_all((0..50).map(|_| case.rotation.keys())).await;
        assert!(all.iter().all(Result::is_ok));
        assert_eq!(case.provider.fetches(), 1);
    }

    #[tokio::test]
    async fn known_keys_go_on_for_a_day_while_the_issuer_is_down() {
        let signer = Signer::ec("a");
        let case = case(&[&signer]).await;
        case.rotation.keys().await.unwrap();
        case.provider.fail(true);
        for _ in 0..23 {
            case.pass(HOUR);
            assert!(verifies(&case.rotation.keys().await.unwrap(), &signer));
        }
        assert_eq!(case.rotation.failure(), Some("the server answers with another status than 200"));
        case.pass(HOUR);
        assert_eq!(case.rotation.keys().await.err(), Some(Refused::KeysUnavailable));
        case.provider.fail(false);
        assert!(case.rotation.keys().await.is_err(), "the pause between attempts holds");
        case.pass(10);
        assert!(verifies(&case.rotation.keys().await.unwrap(), &signer));
    }

    #[tokio::test]
    async fn an_empty_set_revokes_all_keys() {
        let signer = Signer::ec("a");
        let case = case(&[&signer]).await;
        case.rotation.keys().await.unwrap();
        case.provider.publish(&[]);
        case.pass(HOUR);
        assert!(!verifies(&case.rotation.keys().await.unwrap(), &signer));
        assert_eq!(case.rotation.failure(), Some("the JWKS has no usable key"));
    }

    #[tokio::test]
    async fn a_provider_that_lies_gives_no_keys() {
        let cases: [(&str, &str); 6] = [
            (
                r#"{"issuer":"https://other.example.com","jwks_uri":"BASE/keys"}"#,
                "the discovery document is of another issuer",
            ),
            (r#"{"issuer":"BASE/","jwks_uri":"BASE/keys"}"#, "the discovery document is of another issuer"),
            (r#"{"issuer":"BASE"}"#, "the discovery document can't be read"),
            ("<html>", "the discovery document can't be read"),
            (
                r#"{"issuer":"BASE","jwks_uri":"http://example.com/"}"#,
                "the address is neither https nor on this computer",
            ),
            (r#"{"issuer":"BASE","jwks_uri":"file:///etc/passwd"}"#, "the discovery document's jwks_uri isn't a URL"),
        ];
        for (document, why) in cases {
            let case = case(&[&Signer::ec("a")]).await;
            case.provider.describe(document);
            assert_eq!(case.rotation.keys().await.err(), Some(Refused::KeysUnavailable), "{document}");
            assert_eq!(case.rotation.failure(), Some(why), "{document}");
        }
    }

    #[tokio::test]
    async fn a_huge_key_set_is_a_failure() {
        let stub_calls = Arc::new(AtomicUsize::new(0));
        let calls = stub_calls.clone();
        let provider = Provider::custom(move |_| {
            calls.fetch_add(1, Ordering::SeqCst);
            answer(200, " ".repeat(SIZE + 1))
        })
        .await;
        let hand = Hand::default();
        let http = Box::new(Http::new(&Trust::Nobody, at(&hand)).unwrap());
        let rotation = Rotation::new(Origin::Discovery { issuer: provider.issuer(), http }, at(&hand));
        assert!(rotation.keys().await.is_err());
        assert_eq!(rotation.failure(), Some("the answer breaks off or is too large"));
        assert_eq!(stub_calls.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_file_is_read_again() {
        let (old, new, hand) = (Signer::ec("old"), Signer::ec("new"), Hand::default());
        let file = tempfile::NamedTempFile::new().unwrap();
        let write = |signer: &Signer| std::fs::write(file.path(), signer.set()).unwrap();
        write(&old);
        let rotation = Rotation::new(Origin::File(file.path().to_owned()), at(&hand));
        let first = rotation.keys().await.unwrap();
        assert!(verifies(&first, &old));
        write(&new);
        pass(&hand, 10);
        assert!(verifies(&rotation.newer(&first).await.unwrap(), &new));
        std::fs::write(file.path(), " ".repeat(SIZE + 1)).unwrap();
        pass(&hand, 10);
        rotation.refresh().await;
        assert_eq!(rotation.failure(), Some("the file is too large"));
        assert!(verifies(&rotation.keys().await.unwrap(), &new));
    }
}
