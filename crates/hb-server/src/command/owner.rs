//! Whose the files of the data directory are: root makes them, another account serves them.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt as _, lchown};
use std::path::Path;

use crate::error::Failure;

/// What anybody but the owner may do.
const GROUP_AND_OTHERS: u32 = 0o077;
const READ_BY_ALL: u32 = 0o044;

/// Does what may make files in `dir`, and hands them over, also when it failed: a refusal has made a lock.
pub(super) fn handing_over<T>(dir: &Path, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let done = work();
    let handed = hand_over(dir);
    // The first that went wrong is what is told.
    done.and_then(|value| handed.map(|()| value))
}

/// Gives what root made to the owner of the directory, so that the service can use it: the package makes the directory
/// for the account `_hb-server`. Links are not followed.
pub(super) fn hand_over(dir: &Path) -> Result<(), Failure> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let fail = |path: &Path, error: &io::Error| Failure::file("hand over", path, error);
    let Some(owner) = there(fs::metadata(dir)).map_err(|error| fail(dir, &error))? else { return Ok(()) };
    for entry in fs::read_dir(dir).map_err(|error| fail(dir, &error))? {
        let path = entry.map_err(|error| fail(dir, &error))?.path();
        // A server that runs removes files beside its database.
        let given = there(path.symlink_metadata()).and_then(|meta| match meta {
            Some(meta) if is_as_made(&meta) => there(lchown(&path, Some(owner.uid()), Some(owner.gid()))),
            _ => Ok(None),
        });
        given.map_err(|error| fail(&path, &error))?;
    }
    Ok(())
}

/// True for a file as hb makes them: that nobody but root can use, or (the certificate) that everybody may read. A key that root
/// shares with a group (`root:ssl-cert`, 0640) would be refused if it were of any other owner.
fn is_as_made(meta: &Metadata) -> bool {
    meta.is_file() && meta.uid() == 0 && matches!(meta.mode() & GROUP_AND_OTHERS, 0 | READ_BY_ALL)
}

/// None for what is not there (any more).
fn there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}
