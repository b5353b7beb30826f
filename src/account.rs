//! The service's own account: what root starts by hand must not run as root, nor leave files that the service cannot
//! write.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{Gid, Uid};
use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};

use crate::error::Failure;
use crate::place::Place;

/// The service's account (Debian policy 9.2.1: system users begin with an underscore).
pub const ACCOUNT: &str = "_hb";
const ROOT: u32 = 0;

/// An account's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
}

impl Account {
    /// True when it can read this file, as far as modes say: the file, and every directory on the way to it.
    pub fn may_read(self, path: &Path) -> bool {
        let may = |path: &Path, bit: u32| {
            fs::metadata(path).is_ok_and(|meta| {
                let shift = match meta {
                    _ if meta.uid() == self.uid => 6,
                    _ if meta.gid() == self.gid => 3,
                    _ => 0,
                };
                meta.mode() >> shift & bit != 0
            })
        };
        may(path, 4) && path.ancestors().skip(1).all(|directory| may(directory, 1))
    }
}

/// The service's account, where there is one and this process may become it: root, in the system's layout.
pub fn to_become(place: &Place) -> Option<Account> {
    if !place.system || !rustix::process::geteuid().is_root() {
        return None;
    }
    find(&fs::read_to_string("/etc/passwd").ok()?, ACCOUNT)
}

/// Becomes the service's account for good, and makes the state directory its own first. Call before any thread is
/// started: on Linux an identity belongs to a thread, and threads inherit it.
///
/// # Errors
/// 1, naming what could not be done.
pub fn become_it(account: Account, place: &Place) -> Result<(), Failure> {
    let dir = place.state.path();
    let fail = |what: &str, error: io::Error| {
        Failure::failed(format!("{what}: {error}")).hint(format!("as root: chown -R {ACCOUNT}: {}", dir.display()))
    };
    place.state.create().map_err(|error| fail(&format!("could not make {}", dir.display()), error))?;
    own(dir, account).map_err(|error| fail(&format!("could not give {} to {ACCOUNT}", dir.display()), error))?;
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    set_thread_groups(&[])
        .and_then(|()| set_thread_gid(gid))
        .and_then(|()| set_thread_uid(uid))
        .map_err(|error| fail(&format!("could not become {ACCOUNT}"), error.into()))
}

/// Gives the directory and the files in it that root left there to the account. Links are not followed.
fn own(dir: &Path, account: Account) -> io::Result<()> {
    let give = |path: &Path| -> io::Result<()> {
        if fs::symlink_metadata(path)?.uid() == ROOT {
            std::os::unix::fs::lchown(path, Some(account.uid), Some(account.gid))?;
        }
        Ok(())
    };
    give(dir)?;
    for entry in fs::read_dir(dir)? {
        give(&entry?.path())?;
    }
    Ok(())
}

/// Reads `passwd(5)`.
fn find(passwd: &str, name: &str) -> Option<Account> {
    let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut numbers = line.split(':').skip(2);
    let account = Account { uid: numbers.next()?.parse().ok()?, gid: numbers.next()?.parse().ok()? };
    (account.uid != ROOT).then_some(account)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_account_may_read_is_said_by_the_file_and_every_directory_above_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let (inner, file) = (dir.path().join("inner"), dir.path().join("inner/file"));
        fs::create_dir(&inner).unwrap();
        fs::write(&file, "").unwrap();
        let of = fs::metadata(&file).unwrap();
        let (owner, group, other) = (
            Account { uid: of.uid(), gid: 4_000_000 },
            Account { uid: 4_000_000, gid: of.gid() },
            Account { uid: 4_000_000, gid: 4_000_000 },
        );
        let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        for (root, middle, mode, expected) in [
            (0o755, 0o755, 0o644, [true, true, true]),
            (0o755, 0o755, 0o640, [true, true, false]),
            (0o755, 0o755, 0o604, [true, false, true]),
            (0o755, 0o700, 0o644, [true, false, false]),
            (0o710, 0o755, 0o644, [true, true, false]),
            (0o755, 0o755, 0o200, [false, false, false]),
        ] {
            set(&file, mode);
            set(&inner, middle);
            set(dir.path(), root);
            let found = [owner, group, other].map(|account| account.may_read(&file));
            assert_eq!(found, expected, "{root:o} {middle:o} {mode:o}");
        }
        set(&inner, 0o755);
        assert!(!owner.may_read(&dir.path().join("none")));
    }

    #[test]
    fn the_account_is_found_by_its_whole_name_and_is_never_root() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\n_hbx:x:7:7::/:/bin/false\n_hb:x:996:995::/:/usr/sbin/nologin\n";
        assert_eq!(find(passwd, "_hb"), Some(Account { uid: 996, gid: 995 }));
        assert_eq!(find(passwd, "_h"), None);
        assert_eq!(find(passwd, "root"), None);
        for odd in ["", "_hb", "_hb:x", "_hb:x:a:b", "_hb:x:996"] {
            assert_eq!(find(odd, "_hb"), None, "{odd}");
        }
    }
}
