//! What is in the data directory is nobody else's business: the database holds the secrets of channels.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// What everybody who is neither owner nor in the group may do.
const OTHERS: u32 = 0o007;
/// That they may write.
const OTHERS_WRITE: u32 = 0o002;

/// Closes to others what they could read or change of the database, and says so.
///
/// The directory is only warned of: it is the operator's, and may hold other things.
pub(super) fn close(dir: &Path) {
    let database = hb_store_sqlite::database(dir);
    for suffix in ["", "-wal", "-shm"] {
        let mut path = database.clone().into_os_string();
        path.push(suffix);
        let path = Path::new(&path);
        let Some(mode) = mode(path).filter(|mode| mode & OTHERS != 0) else { continue };
        let closed = fs::set_permissions(path, fs::Permissions::from_mode(mode & !OTHERS));
        let shown = path.display();
        match closed {
            Ok(()) => tracing::warn!(
                "{shown} was open to everybody on this machine (mode {mode:04o}) and is closed now: what it holds of secrets \
                 (channels) may be known"
            ),
            Err(error) => tracing::warn!(
                %error, "{shown} is open to everybody on this machine (mode {mode:04o}): chmod o-rwx {shown} ({error})"
            ),
        }
    }
    if let Some(mode) = mode(dir).filter(|mode| mode & OTHERS_WRITE != 0) {
        let shown = dir.display();
        tracing::warn!(
            "{shown} can be written by everybody on this machine (mode {mode:04o}), who could replace the database: chmod o-w \
             {shown}"
        );
    }
}

fn mode(path: &Path) -> Option<u32> {
    fs::metadata(path).ok().map(|meta| meta.permissions().mode() & 0o777)
}
