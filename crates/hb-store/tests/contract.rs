//! The store in memory keeps the contract; so does the faulty store while its plan is empty.

use hb_store::MemoryStore;
use hb_store::faulty::{Faults, FaultyStore};

#[expect(clippy::unused_async, reason = "the contract waits for a store to be made")]
async fn in_memory() -> (MemoryStore, ()) {
    (MemoryStore::new(), ())
}

#[expect(clippy::unused_async, reason = "the contract waits for a store to be made")]
async fn without_faults() -> (FaultyStore<MemoryStore>, ()) {
    (FaultyStore::new(MemoryStore::new(), Faults::none()), ())
}

mod memory {
    hb_store::contract!(super::in_memory);
}

mod faulty {
    hb_store::contract!(super::without_faults);
}
