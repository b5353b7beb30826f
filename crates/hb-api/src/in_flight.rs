//! How many requests are in flight: beyond a limit the server sheds, before a queue grows that nobody can wait for.

use core::sync::atomic::{AtomicUsize, Ordering};

/// Counts the requests in flight.
#[derive(Debug)]
pub struct InFlight {
    now: AtomicUsize,
    max: usize,
}

/// One request in flight, for as long as this lives.
#[derive(Debug)]
#[must_use = "the request counts only while this lives"]
pub struct Place<'a>(&'a InFlight);

impl InFlight {
    /// None in flight, at most `max`.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { now: AtomicUsize::new(0), max }
    }

    /// A place for one more; none when all are taken.
    pub fn enter(&self) -> Option<Place<'_>> {
        let before = self.now.fetch_add(1, Ordering::Relaxed);
        let place = Place(self);
        // Dropping the place gives back what was taken.
        (before < self.max).then_some(place)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.now.load(Ordering::Relaxed)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_more_than_the_limit_is_refused_until_one_leaves() {
        let in_flight = InFlight::new(2);
        let first = in_flight.enter();
        let second = in_flight.enter();
        assert!(first.is_some() && second.is_some());
        assert!(in_flight.enter().is_none());
        assert_eq!(in_flight.count(), 2);
        drop(first);
        assert!(in_flight.enter().is_some());
    }
}
