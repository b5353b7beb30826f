//! Documents that do not fit into the item they belong to: an event about a thousand hosts is larger than any item may be.
//!
//! Pages are written before the item that counts them, under a key that no other writing uses. Until that item is there,
//! nobody looks for them; if its writer dies before, they stay behind unseen.

use hb_store::{Result, StoreError};

use crate::calls::{Query, Table};
use crate::item::{Item, bytes, item, need_bytes};
use crate::keys::{self, Key};

/// Longest document that stands in its item itself, in bytes; far below the 400 KB of an item, and few enough that many of
/// them fit into a transaction.
pub(crate) const INLINE_BYTES_MAX: usize = 60_000;
/// Bytes in a page.
const PAGE_BYTES: usize = 200_000;

fn key(what: &str, page: usize) -> Key {
    Key::new(format!("{}{what}", keys::PAGES), format!("{page:05}"))
}

/// Writes a document's pages and answers how many they are; none: it fits into its item.
pub(crate) async fn write(table: &Table, what: &str, document: &str) -> Result<usize> {
    if document.len() <= INLINE_BYTES_MAX {
        return Ok(0);
    }
    let chunks = document.as_bytes().chunks(PAGE_BYTES);
    let pages: Vec<Item> = chunks.enumerate().map(|(n, chunk)| item(&key(what, n), [("v", bytes(chunk))])).collect();
    let count = pages.len();
    table.put_many(pages).await?;
    Ok(count)
}

/// The document that was written in so many pages.
pub(crate) async fn read(table: &Table, what: &str, pages: usize) -> Result<String> {
    let found = table.query(&Query::all(key(what, 0).pk)).await?;
    let mut document = Vec::new();
    for page in found.iter().take(pages) {
        document.extend_from_slice(need_bytes(page, "v")?);
    }
    if found.len() < pages {
        return Err(StoreError::Corrupt(format!("{} of {pages} pages of {what} are there", found.len())));
    }
    String::from_utf8(document).map_err(|_| StoreError::Corrupt(format!("the pages of {what} are no text")))
}

/// The keys of a document's pages, to be deleted.
pub(crate) fn keys_of(what: &str, pages: usize) -> impl Iterator<Item = Key> + '_ {
    (0..pages).map(move |page| key(what, page))
}
