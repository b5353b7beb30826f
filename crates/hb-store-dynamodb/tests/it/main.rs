//! The store on DynamoDB: the contract, what it costs, and what only a store on a network can get wrong.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test says no by panicking")]

mod cost;
mod desk;
mod emulator;
mod expiry;
mod lists;
mod races;
mod regions;
mod secrets;
mod torn;
mod trouble;
mod world;

use emulator::{Emulator, fresh};
use hb_store_dynamodb::{DynamoStore, Usage};

async fn in_shards() -> (DynamoStore, Emulator) {
    fresh(Usage { shards: 4, region: "eu-central-1".into() }).await
}

mod contract {
    hb_store::contract!(super::in_shards);
}
