//! The honest beat: "alive" means "can still do work". Before each beat the agent writes and syncs its journal; what
//! goes wrong is said in the beat, and never keeps it from being sent.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use hb_wire::beat::Fault;
use rustix::fs::{StatVfsMountFlags, statvfs};

use crate::journal::{Journal, Pen, StateDir};

/// Checks, and knows what was already wrong when the agent started.
#[derive(Debug)]
pub struct Honesty {
    root_was_writable: bool,
}

/// What one check found.
#[derive(Debug, Default)]
pub struct Finding {
    /// For the beat.
    pub faults: Vec<Fault>,
    /// For the log: what the system said.
    pub error: Option<io::Error>,
}

impl Honesty {
    /// Remembers how the root file system is mounted now: an image that is read-only by design is not broken.
    pub fn new() -> Self {
        Self { root_was_writable: !root_is_read_only(None) }
    }

    /// Writes the journal, and says what that tells about the host.
    pub fn check(&self, pen: &mut Pen, journal: &Journal) -> Finding {
        let mut finding = Finding::default();
        // The directory may have been on a disk that was not there yet.
        let written = match pen.write(journal) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                StateDir::new(pen.dir()).create().and_then(|()| pen.write(journal))
            }
            other => other,
        };
        let read_only = root_is_read_only(written.is_ok().then(|| pen.dir()));
        let refused = match written {
            Err(error) => Some(error),
            // The journal has its room, but nothing else on that disk can grow.
            Ok(()) => is_full(pen.dir()).then(|| rustix::io::Errno::NOSPC.into()),
        };
        finding.faults.extend(refused.as_ref().map(fault_of));
        let by_read_only = refused.as_ref().is_some_and(|error| error.kind() == io::ErrorKind::ReadOnlyFilesystem);
        if read_only && (by_read_only || self.root_was_writable) {
            finding.faults.push(Fault::RootReadOnly);
        }
        finding.error = refused;
        finding
    }
}

impl Default for Honesty {
    fn default() -> Self {
        Self::new()
    }
}

fn fault_of(error: &io::Error) -> Fault {
    if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        Fault::DiskFull
    } else {
        Fault::StateUnwritable
    }
}

/// True when nothing can be added to the disk under `dir`. A file system that counts no files shows 0 of 0.
fn is_full(dir: &Path) -> bool {
    statvfs(dir).is_ok_and(|disk| disk.f_bavail == 0 || (disk.f_files > 0 && disk.f_favail == 0))
}

/// Whether the kernel lets nobody write to the root file system; `written` is a directory that was just written to.
///
/// The list of mounts tells it for sure, and costs as much as a good part of a beat: two cheaper answers go first.
fn root_is_read_only(written: Option<&Path>) -> bool {
    if statvfs("/").is_ok_and(|root| !root.f_flag.contains(StatVfsMountFlags::RDONLY)) {
        return false;
    }
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).ok();
    if written.is_some_and(|dir| device(dir).is_some() && device(dir) == device(Path::new("/"))) {
        return false;
    }
    fs::read_to_string("/proc/self/mountinfo").is_ok_and(|mounts| is_root_read_only(&mounts))
}

/// Reads `/proc/self/mountinfo` (proc(5)). What counts are the options of the file system itself, which turn to `ro`
/// when the kernel gives up on a disk; a sandbox mounts `/` read-only without meaning anything by it.
fn is_root_read_only(mountinfo: &str) -> bool {
    let mut of_root = mountinfo.lines().filter(|line| line.split(' ').nth(4) == Some("/"));
    // The last one lies on top.
    let Some((_, after)) = of_root.next_back().and_then(|line| line.split_once(" - ")) else { return false };
    after.split(' ').nth(2).is_some_and(|options| options.split(',').any(|option| option == "ro"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_read_only_when_its_file_system_is_not_when_a_sandbox_is() {
        let sandbox = "36 1 8:1 / / ro,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro\n";
        let broken = "36 1 8:1 / / ro,relatime shared:1 - ext4 /dev/sda1 ro,errors=remount-ro\n";
        let other = "37 36 8:2 / /mnt ro - ext4 /dev/sdb1 ro\n";
        assert!(!is_root_read_only(sandbox));
        assert!(is_root_read_only(broken));
        assert!(!is_root_read_only(other));
        assert!(!is_root_read_only(&format!("{broken}{other}{sandbox}")), "the last one lies on top");
        for odd in ["", "\n", "a b", " - ", "1 2 3 4 / 6 - ext4"] {
            assert!(!is_root_read_only(odd));
        }
    }

    #[test]
    fn a_full_disk_and_a_full_quota_are_named_as_such() {
        assert_eq!(fault_of(&io::ErrorKind::StorageFull.into()), Fault::DiskFull);
        assert_eq!(fault_of(&io::ErrorKind::QuotaExceeded.into()), Fault::DiskFull);
        assert_eq!(fault_of(&io::ErrorKind::PermissionDenied.into()), Fault::StateUnwritable);
    }
}
