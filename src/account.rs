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
