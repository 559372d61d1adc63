//! Ctrl-C: once, nothing new starts; twice, the program leaves at once.

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::exit;
use crate::engine::execute::Stop;

/// Watches for signals as long as it lives.
pub struct Watcher(JoinHandle<()>);

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Begins to watch. The receiver turns to [`Stop::Gently`] at the first
/// signal.
pub fn watch() -> (Watcher, watch::Receiver<Stop>) {
    let (sender, receiver) = watch::channel(Stop::No);
    let task = tokio::spawn(async move {
        // Without signals the run can't be stopped gently; it goes on.
        let Ok(mut signals) = Signals::new() else { return sender.closed().await };
        signals.next().await;
        if sender.send(Stop::Gently).is_ok() {
            signals.next().await;
            leave();
        }
    });
    (Watcher(task), receiver)
}

/// Waits for the first signal; where signals can't be watched, ends at once.
pub async fn requested() {
    if let Ok(mut signals) = Signals::new() {
        signals.next().await;
    }
}

/// Whoever asks twice wants to be out; what was begun is found by the next
/// run.
#[allow(clippy::disallowed_methods)]
pub fn leave() {
    std::process::exit(i32::from(exit::INTERRUPTED));
}

#[cfg(unix)]
struct Signals(tokio::signal::unix::Signal, tokio::signal::unix::Signal);

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self(signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?))
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
