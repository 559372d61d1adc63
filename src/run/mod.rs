//! The application layer: what the command line, a controller and tests call.
//!
//! It opens a session, reads what exists, plans, checks the plan ([`preflight`]), executes it under the tenancy's
//! lock, and verifies what was written. It prints nothing, never exits the process and has no global state. A
//! [`Host`] receives all messages and questions.

mod apply;
pub mod check;
pub mod doctor;
mod facts;
mod failure;
pub mod gateway;
mod host;
mod locked;
mod look;
pub mod preflight;
pub mod saved;
mod session;

pub use apply::{Ended, Manner, Ran, Request, Verdict, apply};
pub use failure::Failure;
pub use host::{Host, Silent, Stage};
pub use look::Look;
pub use session::{Embedded, Options, Session, account, named, written};

use crate::engine::error::Error;

/// An error about `what`, which can't be written, with help for this I/O error.
pub fn unwritten(what: &str, error: &std::io::Error) -> Error {
    let help = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded | std::io::ErrorKind::FileTooLarge => {
            "free some space, then run the same command; no incomplete file is left behind"
        }
        std::io::ErrorKind::PermissionDenied => "choose a directory with write permission",
        _ => "check the path",
    };
    Error::input(format!("{what} can't be written: {error}")).help(help)
}
