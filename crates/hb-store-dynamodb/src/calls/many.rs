//! Many items in one request, each on its own.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::{DeleteRequest, KeysAndAttributes, PutRequest, ReturnConsumedCapacity, WriteRequest};
use futures_util::future::try_join_all;
use hb_store::{Result, StoreError};

use super::{TRIES_MAX, Table};
use crate::failure;
use crate::item::Item;
use crate::keys::Key;

/// Most items in one request of each kind: DynamoDB's own limits.
const GET_MAX: usize = 100;
const WRITE_MAX: usize = 25;
/// Requests of one call that are under way at once.
const WIDTH_MAX: usize = 8;

impl Table {
    /// Those of these items that exist.
    pub(crate) async fn get_many(&self, mut keys: Vec<Key>, consistent: bool) -> Result<HashMap<Key, Item>> {
        keys.sort_unstable();
        keys.dedup();
        let mut found = HashMap::with_capacity(keys.len());
        let chunks: Vec<&[Key]> = keys.chunks(GET_MAX).collect();
        for some in chunks.chunks(WIDTH_MAX) {
            for items in try_join_all(some.iter().map(|chunk| self.get_chunk(chunk, consistent))).await? {
                found.extend(items.into_iter().filter_map(|item| Some((Key::of(&item)?, item))));
            }
        }
        Ok(found)
    }

    async fn get_chunk(&self, keys: &[Key], consistent: bool) -> Result<Vec<Item>> {
        let keys = keys.iter().map(Key::attributes).collect();
        let wanted = KeysAndAttributes::builder().consistent_read(consistent).set_keys(Some(keys)).build();
        let mut wanted = wanted.map_err(|_| StoreError::Corrupt("no keys".into()))?;
        let mut found = Vec::new();
        for tries in 0..TRIES_MAX {
            let request = self.client.batch_get_item().request_items(&self.name, wanted);
            let request = request.return_consumed_capacity(ReturnConsumedCapacity::Indexes);
            let answer = self.under_way(request.send()).await.map_err(|error| failure::of(&error))?;
            self.meter.read(answer.consumed_capacity());
            found.extend(answer.responses.into_iter().flat_map(HashMap::into_values).flatten());
            match answer.unprocessed_keys.and_then(|mut rest| rest.remove(&self.name)) {
                Some(rest) if !rest.keys().is_empty() => wanted = rest,
                _ => return Ok(found),
            }
            self.back_off(tries).await;
        }
        Err(StoreError::Overloaded)
    }

    /// Puts items where nobody looks yet: unconditionally, each on its own.
    pub(crate) async fn put_many(&self, items: Vec<Item>) -> Result<()> {
        let puts = items.into_iter().map(|item| {
            let put = PutRequest::builder().set_item(Some(item)).build();
            put.map(|put| WriteRequest::builder().put_request(put).build())
        });
        self.write_many(puts.collect::<core::result::Result<_, _>>().map_err(|_| no_item())?).await
    }

    /// Deletes what nobody needs any more: unconditionally, each on its own.
    pub(crate) async fn delete_many(&self, keys: impl IntoIterator<Item = Key>) -> Result<()> {
        let deletes = keys.into_iter().map(|key| {
            let delete = DeleteRequest::builder().set_key(Some(key.attributes())).build();
            delete.map(|delete| WriteRequest::builder().delete_request(delete).build())
        });
        self.write_many(deletes.collect::<core::result::Result<_, _>>().map_err(|_| no_item())?).await
    }

    async fn write_many(&self, writes: Vec<WriteRequest>) -> Result<()> {
        let chunks: Vec<&[WriteRequest]> = writes.chunks(WRITE_MAX).collect();
        for some in chunks.chunks(WIDTH_MAX) {
            try_join_all(some.iter().map(|chunk| self.write_chunk(chunk.to_vec()))).await?;
        }
        Ok(())
    }

    async fn write_chunk(&self, mut writes: Vec<WriteRequest>) -> Result<()> {
        for tries in 0..TRIES_MAX {
            let request = self.client.batch_write_item().request_items(&self.name, writes);
            let request = request.return_consumed_capacity(ReturnConsumedCapacity::Indexes);
            let answer = self.under_way(request.send()).await.map_err(|error| failure::of(&error))?;
            self.meter.wrote(answer.consumed_capacity());
            match answer.unprocessed_items.and_then(|mut rest| rest.remove(&self.name)) {
                Some(rest) if !rest.is_empty() => writes = rest,
                _ => return Ok(()),
            }
            self.back_off(tries).await;
        }
        Err(StoreError::Overloaded)
    }
}

fn no_item() -> StoreError {
    StoreError::Corrupt("an item without attributes".into())
}
