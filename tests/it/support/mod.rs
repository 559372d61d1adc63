//! Starts the real components that the tests use.

pub mod judge;
pub mod kubernetes;
pub mod moto;
pub mod served;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ringfence::aws::{Access, Aws};
use ringfence::engine::clock::Clock;

pub const ACCOUNT: &str = "123456789012";
pub const REGION: &str = "us-east-1";

/// The file in which a sandbox records its calls: a new file in `RINGFENCE_RECORD_DIR`. `make test` checks the files
/// against AWS's models.
pub fn record() -> Option<PathBuf> {
    static RECORDS: AtomicUsize = AtomicUsize::new(1);
    let dir = record_dir(std::env::var_os("RINGFENCE_RECORD_DIR"))?;
    Some(dir.join(format!("{}.jsonl", RECORDS.fetch_add(1, Ordering::Relaxed))))
}

/// `None` if the variable is empty. A relative path is refused, because the tests' directory isn't the caller's.
pub fn record_dir(said: Option<OsString>) -> Option<PathBuf> {
    let dir = PathBuf::from(said.filter(|dir| !dir.is_empty())?);
    assert!(dir.is_absolute(), "RINGFENCE_RECORD_DIR is not an absolute path: {}", dir.display());
    Some(dir)
}

/// Clients for the endpoint `url`, for a tenancy that no other test uses.
pub async fn connect(url: &str, clock: Clock) -> Arc<Aws> {
    static TENANCIES: AtomicUsize = AtomicUsize::new(1);
    let tenancy = format!("t{}", TENANCIES.fetch_add(1, Ordering::Relaxed));
    let access =
        Access { region: REGION.to_owned(), sandbox: Some((url.to_owned(), ACCOUNT.to_owned())), patience: None };
    Aws::connect(&access, &tenancy, clock).await.expect("the stand-in for AWS answers")
}
