//! What will happen in a world, and when.

use core::cmp::Ordering;

/// Something that will happen: what is due first is the greatest, since a heap gives the greatest first.
#[derive(Debug)]
pub struct Entry<T> {
    /// When, in milliseconds.
    pub at: u64,
    /// Of two at the same instant, the lower one comes first.
    pub seq: u64,
    /// What.
    pub what: T,
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.seq).cmp(&(self.at, self.seq))
    }
}
