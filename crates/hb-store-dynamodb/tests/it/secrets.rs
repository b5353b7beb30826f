//! What all functions of a server share.

use hb_store::StoreError;
use hb_store_dynamodb::{DynamoStore, Usage};

use crate::emulator::{TABLE, fresh};

fn usage(region: &str) -> Usage {
    Usage { shards: 1, region: region.into() }
}

#[tokio::test]
async fn whoever_comes_first_makes_the_secrets_and_everybody_has_the_same() {
    let (store, emulator) = fresh(usage("eu-central-1")).await;
    let (one, other) = tokio::join!(store.secrets([1; 64]), store.secrets([2; 64]));
    let kept = one.unwrap();
    assert_eq!(other.unwrap(), kept);
    let later = DynamoStore::open(emulator.client(), TABLE, usage("eu-central-1")).await.unwrap();
    assert_eq!(later.secrets([3; 64]).await.unwrap(), kept);
}

#[tokio::test]
async fn a_table_is_looked_after_by_one_region() {
    let (store, emulator) = fresh(usage("eu-central-1")).await;
    store.secrets([1; 64]).await.unwrap();
    let other = DynamoStore::open(emulator.client(), TABLE, usage("eu-west-1")).await.unwrap();
    let refused = other.secrets([2; 64]).await;
    assert!(matches!(&refused, Err(StoreError::Unavailable(why)) if why.contains("eu-central-1")), "{refused:?}");
}
