//! Keeps the agent small: the start (reading arguments, configuration and certificate authorities) touches most of the
//! program once, and the loop that then runs for months needs a part of it.

use std::fs;

use rustix::mm::{Advice, madvise};

/// Unmaps the pages of programs and libraries that are mapped now; the ones that are still needed come back by
/// themselves, from the page cache. Does nothing where `/proc` does not say what is mapped.
pub fn shed() {
    let Ok(smaps) = fs::read_to_string("/proc/self/smaps") else { return };
    for (start, length) in clean(&smaps) {
        let address = std::ptr::with_exposed_provenance_mut(start);
        // SAFETY: the range is a private mapping of a file that cannot be written and of which no page was ever changed,
        // so every page of it is as it is in the file, and the kernel maps it again from there at its next use.
        #[expect(unsafe_code, reason = "no safe call tells the kernel that a file's pages are not needed for now")]
        let _ = unsafe { madvise(address, length, Advice::LinuxDontNeed) };
    }
}

/// The address and length of each mapping of a file that is as it is in the file (`proc_pid_smaps(5)`). What was changed
/// in it, as the linker does before it forbids to write, counts as anonymous.
fn clean(smaps: &str) -> impl Iterator<Item = (usize, usize)> {
    let mut mapping = None;
    smaps.lines().filter_map(move |line| {
        if let Some(size) = line.strip_prefix("Anonymous:") {
            return mapping.take().filter(|_| size.trim() == "0 kB");
        }
        if let Some(found) = file_of(line) {
            mapping = found;
        }
        None
    })
}

/// For the first line of a mapping: its address and length if it is a file's and cannot be written.
#[expect(clippy::option_option, reason = "another line says nothing, another mapping says that it is none of these")]
fn file_of(line: &str) -> Option<Option<(usize, usize)>> {
    let mut words = line.split_ascii_whitespace();
    let (range, mode) = (words.next()?, words.next()?);
    let (start, end) = range.split_once('-')?;
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    let is_file = matches!(mode, "r-xp" | "r--p") && words.nth(3).is_some_and(|path| path.starts_with('/'));
    Some(end.checked_sub(start).filter(|_| is_file).map(|length| (start, length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_as_in_its_file_is_let_go() {
        let mapping = |head: &str, anonymous: u32| {
            format!("{head}\nSize: 2048 kB\nRss: 700 kB\nAnonymous: {anonymous:>9} kB\nVmFlags: rd ex mr mw me\n")
        };
        let text = "55d0c0a00000-55d0c0c00000 r-xp 00100000 fe:00 123 /usr/bin/hb";
        let constants = "55d0c0900000-55d0c0a00000 r--p 00000000 fe:00 123 /usr/bin/hb";
        let smaps = mapping(constants, 0) + &mapping(text, 0);
        assert_eq!(clean(&smaps).collect::<Vec<_>>(), [(0x55d0_c090_0000, 0x10_0000), (0x55d0_c0a0_0000, 0x20_0000)]);
        assert_eq!(clean(&mapping(constants, 4)).count(), 0, "relocated when it was loaded");
        for other in [
            "55d0c0a00000-55d0c0c00000 rwxp 00100000 fe:00 123 /usr/bin/hb",
            "55d0c0a00000-55d0c0c00000 rw-p 00100000 fe:00 123 /usr/bin/hb",
            "55d0c0a00000-55d0c0c00000 r-xs 00100000 fe:00 123 /usr/bin/hb",
            "7ffc1b5f0000-7ffc1b5f2000 r-xp 00000000 00:00 0 [vdso]",
            "7ffc1b5f0000-7ffc1b5f2000 r-xp 00000000 00:00 0",
            "x-y r-xp 0 0 0 /f",
            "",
        ] {
            assert_eq!(clean(&mapping(other, 0)).count(), 0, "{other:?}");
            assert_eq!(clean(&(mapping(text, 0) + &mapping(other, 0))).count(), 1, "{other:?} is not the one before");
        }
    }

    #[test]
    fn the_program_runs_on_afterwards() {
        for _ in 0..3 {
            shed();
            assert_eq!(format!("{:?}", "x".repeat(3)), "\"xxx\"");
        }
    }
}
