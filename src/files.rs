//! The user's files: the rules for reading them, and the one function that writes all of them.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

/// # Errors `file` is no regular file, or a link leads out of `directory`.
pub fn within(directory: &Path, file: &Path) -> io::Result<()> {
    let (root, real) = (directory.canonicalize()?, file.canonicalize()?);
    match (real.starts_with(&root), real.is_file()) {
        (true, true) => Ok(()),
        (true, false) => Err(io::Error::other("it isn't an ordinary file")),
        (false, _) => Err(io::Error::other("it is a link that leads out of the directory")),
    }
}

/// Writes `bytes` to `path`. All files of the user are written by this function.
///
/// A file is replaced atomically, and keeps its mode and owner. If `path` is a link, the link's target is replaced,
/// not the link. A path that isn't a regular file (a pipe, a device) is written into. A new file gets `mode`, limited
/// by the umask.
///
/// # Errors The file can't be written. No incomplete file is left, except if `path` isn't a regular file.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let there = match fs::metadata(path) {
        Ok(there) => Some(there),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    if let Some(mut open) = there.as_ref().and_then(own_output) {
        return open.write_all(bytes);
    }
    match there {
        Some(other) if !other.is_file() => OpenOptions::new().write(true).open(path)?.write_all(bytes),
        there => replace(&target(path)?, there.as_ref(), bytes, mode),
    }
}

/// Stdout or stderr, if `path` is one of them, as `/dev/stdout` is. Then the output keeps its order with other output
/// of the program.
fn own_output(there: &Metadata) -> Option<File> {
    let (out, err) = (io::stdout(), io::stderr());
    let both = [out.as_fd().try_clone_to_owned(), err.as_fd().try_clone_to_owned()];
    both.into_iter()
        .flatten()
        .map(File::from)
        .find(|open| open.metadata().is_ok_and(|own| (own.dev(), own.ino()) == (there.dev(), there.ino())))
}

/// The target of `path` after all links. It needn't exist.
fn target(path: &Path) -> io::Result<PathBuf> {
    // Linux follows the same number of links.
    const LINKS: usize = 40;
    let mut at = path.to_owned();
    for _ in 0..LINKS {
        match fs::read_link(&at) {
            Ok(to) => at = folder(&at).join(to),
            Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::NotFound) => return Ok(at),
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("it leads through too many links"))
}

fn folder(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes a new file beside `file` and renames it to `file`.
fn replace(file: &Path, former: Option<&Metadata>, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut prefix = OsString::from(".");
    prefix.push(file.file_name().ok_or(ErrorKind::InvalidInput)?);
    prefix.push(".");
    // The former file's mode may be stricter. Others must not read the new content before the mode is set.
    let permissions = Permissions::from_mode(former.map_or(mode, |_| 0o600));
    // Dropping the value removes the temporary file if this function returns early.
    let mut next =
        tempfile::Builder::new().prefix(&prefix).suffix(".new").permissions(permissions).tempfile_in(folder(file))?;
    next.as_file_mut().write_all(bytes)?;
    let kept = former.is_none_or(|former| keep(next.as_file(), former).is_ok());
    next.as_file().sync_all()?;
    if !kept {
        return overwrite(file, bytes);
    }
    match next.persist(file) {
        Ok(_) => sync(folder(file)),
        // A file that is a mount point, as in containers, can't be replaced by a rename.
        Err(failed) if failed.error.kind() == ErrorKind::ResourceBusy => overwrite(file, bytes),
        Err(failed) => Err(failed.error),
    }
}

/// Gives `next` the owner and the mode of `former`.
fn keep(next: &File, former: &Metadata) -> io::Result<()> {
    let own = next.metadata()?;
    if (own.uid(), own.gid()) != (former.uid(), former.gid()) {
        fchown(next, Some(former.uid()), Some(former.gid()))?;
    }
    next.set_permissions(Permissions::from_mode(former.mode() & 0o7777))
}

/// For a file that can't be replaced. There is enough space, because the temporary file has the complete content.
fn overwrite(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).truncate(true).open(file)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes the new name survive a crash, if directories can be synced.
fn sync(folder: &Path) -> io::Result<()> {
    let Ok(open) = File::open(folder) else { return Ok(()) };
    match open.sync_all() {
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
        synced => synced,
    }
}
