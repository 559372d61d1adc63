//! Signals. At the first Ctrl-C, no new step starts. At the second, running steps are abandoned. At the third, the
//! process exits at once. SIGTERM and SIGHUP count like Ctrl-C.

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::exit;
use crate::engine::execute::Stop;

/// Watches for signals until it is dropped.
pub struct Watcher(JoinHandle<()>);

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Starts to watch. The receiver changes to [`Stop::Gently`] at the first signal and to [`Stop::AtOnce`] at the
/// second.
pub fn watch() -> (Watcher, watch::Receiver<Stop>) {
    let (sender, receiver) = watch::channel(Stop::No);
    let task = tokio::spawn(async move {
        // If signal handlers can't be installed, the run continues without them.
        let Ok(mut signals) = Signals::new() else { return sender.closed().await };
        for stop in [Stop::Gently, Stop::AtOnce] {
            signals.next().await;
            if sender.send(stop).is_err() {
                return;
            }
        }
        signals.next().await;
        leave();
    });
    (Watcher(task), receiver)
}

/// Waits for the first signal. Returns at once if signal handlers can't be installed.
pub async fn requested() {
    if let Ok(mut signals) = Signals::new() {
        signals.next().await;
    }
}

/// Exits without cleanup: the user asked three times, and the next run observes what this one has begun.
#[allow(clippy::disallowed_methods)]
pub fn leave() {
    std::process::exit(i32::from(exit::INTERRUPTED));
}

#[cfg(unix)]
struct Signals(Vec<tokio::signal::unix::Signal>);

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut kinds = vec![SignalKind::interrupt(), SignalKind::terminate()];
        // Under nohup, a run must survive the end of its terminal.
        if !ignores_hangup() {
            kinds.push(SignalKind::hangup());
        }
        kinds.into_iter().map(signal).collect::<std::io::Result<_>>().map(Self)
    }

    async fn next(&mut self) {
        futures::future::select_all(self.0.iter_mut().map(|signal| Box::pin(signal.recv()))).await;
    }
}

/// True if this process was started with SIGHUP ignored. Only Linux tells this without unsafe code. On other systems
/// the answer is always false.
#[cfg(unix)]
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
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
