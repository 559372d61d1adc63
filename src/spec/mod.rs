//! Turns a tenancy file and its profiles into a [`Spec`]. Reading, checking and resolving need no network. All mistakes
//! are reported at once, each with its place in the file.

pub mod arn;
pub mod catalog;
mod checks;
pub mod control;
mod document;
pub mod error;
mod findings;
mod load;
pub mod names;
mod network;
mod places;
mod profile;
mod profile_schema;
pub mod region;
mod resolved;
mod rules;
mod said;
mod schema;
mod schema_parts;
mod settings;
mod structure;
#[cfg(test)]
mod tests;
mod tree;
mod uid;
mod url;
mod words;

use std::io::Read;
use std::path::Path;

pub use arn::Principal;
pub use control::Control;
pub use document::*;
pub use error::{Related, SpecError, SpecErrors};
pub use findings::in_order;
pub use load::{LoadOptions, canonical, digest, load};
pub use places::Places;
pub use profile_schema::profile_schema;
pub use resolved::*;
pub use rules::BASELINE_CAPABILITIES;
pub use schema::schema;
pub use settings::*;
pub use uid::{UidRange, uid_range};
pub use words::{list, nearest, quote};

pub use crate::version::KubernetesVersion;

/// Reads a spec's file, up to the largest size that a spec may have. The text must be UTF-8.
pub fn read(file: &Path) -> Result<String, SpecErrors> {
    let wrong = |message: String, help: &str| SpecErrors(vec![tree::whole_file(file, message, help)]);
    let unreadable =
        |error: std::io::Error| wrong(format!("the file can't be read: {error}"), "check the name and the permissions");
    let mut bytes = Vec::new();
    let limit = u64::try_from(tree::MAX_BYTES + 1).unwrap_or(u64::MAX);
    let open = std::fs::File::open(file).map_err(unreadable)?;
    open.take(limit).read_to_end(&mut bytes).map_err(unreadable)?;
    String::from_utf8(bytes).map_err(|error| {
        let line = 1 + error.as_bytes().iter().take(error.utf8_error().valid_up_to()).filter(|b| **b == b'\n').count();
        wrong(format!("line {line} is not UTF-8 text"), "save the file as UTF-8")
    })
}
