//! Keeps the agent small: the start (reading arguments, configuration and certificate authorities) touches most of the
//! program once, and the loop that then runs for months needs a part of it.

use std::fs;

use rustix::mm::{Advice, madvise};

/// Unmaps the pages of program text that are mapped now; the ones that are still needed come back by themselves, from
/// the page cache. Does nothing where `/proc` does not say what is mapped.
pub fn shed_text() {
    let Ok(maps) = fs::read_to_string("/proc/self/maps") else { return };
    for (start, length) in maps.lines().filter_map(text_of) {
        let address = std::ptr::with_exposed_provenance_mut(start);
        // SAFETY: the range is a private mapping of a file that can be read and executed and not be written, so every
        // page of it is as it is in the file, and the kernel maps it again from there at its next use.
        #[expect(unsafe_code, reason = "no safe call tells the kernel that text is not needed for now")]
        let _ = unsafe { madvise(address, length, Advice::LinuxDontNeed) };
    }
}

/// The address and length of a mapping that is the text of a file (`proc_pid_maps(5)`).
fn text_of(line: &str) -> Option<(usize, usize)> {
    let mut words = line.split_ascii_whitespace();
    let (range, mode) = (words.next()?, words.next()?);
    let path = words.nth(3)?;
    if mode != "r-xp" || !path.starts_with('/') {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    Some((start, end.checked_sub(start)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_text_of_files_is_let_go() {
        let text = "55d0c0a00000-55d0c0c00000 r-xp 00100000 fe:00 123 /usr/bin/hb";
        assert_eq!(text_of(text), Some((0x55d0_c0a0_0000, 0x20_0000)));
        for other in [
            "55d0c0a00000-55d0c0c00000 r--p 00100000 fe:00 123 /usr/bin/hb",
            "55d0c0a00000-55d0c0c00000 rwxp 00100000 fe:00 123 /usr/bin/hb",
            "55d0c0a00000-55d0c0c00000 r-xs 00100000 fe:00 123 /usr/bin/hb",
            "7ffc1b5f0000-7ffc1b5f2000 r-xp 00000000 00:00 0 [vdso]",
            "7ffc1b5f0000-7ffc1b5f2000 r-xp 00000000 00:00 0",
            "x-y r-xp 0 0 0 /f",
            "",
        ] {
            assert_eq!(text_of(other), None, "{other:?}");
        }
    }

    #[test]
    fn the_program_runs_on_afterwards() {
        for _ in 0..3 {
            shed_text();
            assert_eq!(format!("{:?}", "x".repeat(3)), "\"xxx\"");
        }
    }
}
