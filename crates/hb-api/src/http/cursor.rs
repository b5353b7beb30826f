//! Cursors: where a page ended. Opaque to clients, and checked: one that was changed, cut, or made for another list is
//! refused instead of quietly showing the wrong page.

use base64ct::{Base64UrlUnpadded, Encoding as _};
use hb_wire::problem::Problem;
use sha2::{Digest as _, Sha256};

use super::query::bad;

/// Bytes of checksum in front of a cursor's content.
const CHECK_BYTES: usize = 6;
/// Longest cursor that is read, in characters.
const CURSOR_CHARS_MAX: usize = 1024;

/// Writes a cursor of the list called `list`.
pub(crate) fn write(list: &str, place: &str) -> String {
    let mut bytes = check(list, place).to_vec();
    bytes.extend_from_slice(place.as_bytes());
    Base64UrlUnpadded::encode_string(&bytes)
}

/// Reads a cursor of the list called `list`.
pub(crate) fn read(list: &str, cursor: &str) -> Result<String, Problem> {
    opened(list, cursor).ok_or_else(|| {
        bad("the cursor was not made for this list")
            .hint("begin without a cursor, and pass on `next_cursor` as it comes")
    })
}

fn opened(list: &str, cursor: &str) -> Option<String> {
    if cursor.len() > CURSOR_CHARS_MAX {
        return None;
    }
    let bytes = Base64UrlUnpadded::decode_vec(cursor).ok()?;
    let (sum, place) = bytes.split_at_checked(CHECK_BYTES)?;
    let place = core::str::from_utf8(place).ok()?;
    (check(list, place) == sum).then(|| place.to_owned())
}

fn check(list: &str, place: &str) -> [u8; CHECK_BYTES] {
    let digest = Sha256::new().chain_update(list).chain_update([0]).chain_update(place).finalize();
    let mut sum = [0; CHECK_BYTES];
    for (to, from) in sum.iter_mut().zip(digest.iter()) {
        *to = *from;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_back_by_its_own_list_only() {
        let cursor = write("hosts", "web1/0199");
        assert_eq!(read("hosts", &cursor).unwrap(), "web1/0199");
        assert!(read("events", &cursor).is_err());
    }

    #[test]
    fn a_cursor_with_any_changed_or_missing_character_is_refused() {
        let cursor = write("hosts", "web1/0199");
        for place in 0..cursor.len() {
            assert!(read("hosts", &cursor[..place]).is_err(), "cut at {place}");
            let old = cursor.as_bytes()[place];
            let new = if old == b'A' { 'B' } else { 'A' };
            let mut changed = cursor.clone();
            changed.replace_range(place..=place, &new.to_string());
            assert!(read("hosts", &changed).is_err(), "{changed}");
        }
        assert!(read("hosts", &format!("{cursor}A")).is_err());
        assert!(read("hosts", "").is_err());
        assert!(read("hosts", &"A".repeat(5000)).is_err());
    }
}
