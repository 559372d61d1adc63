//! The state directory.

use super::state::State;
use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;

/// Makes `dir` and locks the directory itself for this process; no lock file is needed. The operating system releases
/// the lock when the process ends in any way. `None`: directories can't be opened or locked here, as on Windows and
/// some network file systems.
#[allow(clippy::disallowed_methods, reason = "a second at most, before anything is served")]
pub(super) fn hold(dir: &Path) -> io::Result<Option<File>> {
    std::fs::create_dir_all(dir).map_err(|why| at(dir, "can't be made a directory", why))?;
    let Ok(held) = File::open(dir) else { return Ok(None) };
    let mut tries = 50;
    loop {
        match held.try_lock() {
            Ok(()) => return Ok(Some(held)),
            // A child process of the former holder inherits the descriptor, and with it the lock, between fork and
            // exec. So a locked directory may become free within a moment.
            Err(TryLockError::WouldBlock) if tries > 0 => tries -= 1,
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::new(
                    io::ErrorKind::ResourceBusy,
                    format!("another process has {} open as its sandbox", dir.display()),
                ));
            }
            Err(TryLockError::Error(_)) => return Ok(None),
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

pub(super) fn load(file: &Path) -> io::Result<State> {
    match std::fs::read(file) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|why| {
            at(file, "doesn't hold the state of a sandbox (move it away to start with an empty sandbox)", why)
        }),
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(State::default()),
        Err(why) => Err(at(file, "can't be read", why)),
    }
}

/// An I/O error with the name of the file.
pub(super) fn at(file: &Path, what: &str, why: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("{} {what}: {why}", file.display()))
}
