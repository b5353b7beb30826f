//! How many files, and so connections, this process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::listener::Limits;

/// Files that are not connections from hosts: the database, logs, webhooks, mail, programs.
pub const FILES_RESERVED: u64 = 256;
/// Most connections unless the configuration says otherwise: each costs about ten kilobytes.
pub const CONNECTIONS_DEFAULT_MAX: u64 = 100_000;

/// Raises the limit on open files as far as it goes; what it then is.
pub fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum.unwrap_or(u64::MAX),
        Err(_) => limit.current.unwrap_or(u64::MAX),
    }
}

/// The limits on connections, from what is configured and the number of files that may be open; with a warning when that
/// does not suffice.
#[must_use]
pub fn connections(configured: Option<u64>, open_files: u64) -> (Limits, Option<String>) {
    let possible = open_files.saturating_sub(FILES_RESERVED).max(16);
    let (granted, warning) = match configured {
        Some(wanted) if wanted > possible => {
            let warning = format!(
                "connections_max = {wanted}, but at most {possible} are possible with {open_files} open files: raise \
                 LimitNOFILE= of the unit, or `ulimit -n`"
            );
            (possible, Some(warning))
        }
        Some(wanted) => (wanted, None),
        None => (possible.min(CONNECTIONS_DEFAULT_MAX), None),
    };
    (Limits::new(usize::try_from(granted).unwrap_or(usize::MAX)), warning)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_follow_the_limit_on_files_and_a_wish_beyond_it_is_answered_with_a_warning() {
        let max = |configured, files| {
            let (limits, warning) = connections(configured, files);
            (limits.connections_max, warning.is_some())
        };
        assert_eq!(max(None, 1024), (768, false));
        assert_eq!(max(None, 1_048_576), (100_000, false));
        assert_eq!(max(Some(500), 1024), (500, false));
        assert_eq!(max(Some(5_000), 1024), (768, true));
        assert_eq!(max(None, 10), (16, false), "never none at all");
    }
}
