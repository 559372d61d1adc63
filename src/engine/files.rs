//! What a directory of the user's may hold.

use std::io;
use std::path::Path;

/// # Errors
/// `file` is no ordinary file, or a link leads out of `directory`.
pub fn within(directory: &Path, file: &Path) -> io::Result<()> {
    let (root, real) = (directory.canonicalize()?, file.canonicalize()?);
    match (real.starts_with(&root), real.is_file()) {
        (true, true) => Ok(()),
        (true, false) => Err(io::Error::other("it is no ordinary file")),
        (false, _) => Err(io::Error::other("it is a link that leads out of the directory")),
    }
}
