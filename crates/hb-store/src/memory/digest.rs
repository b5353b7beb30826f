//! One number for everything that the store holds. Indexes are left out: they follow from the records.

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::records::Records;

pub(super) fn of(records: &Records) -> [u8; 32] {
    let mut hash = Sha256::new();
    for held in records.hosts.values() {
        add(&mut hash, "host", &(held.rev, &held.value));
    }
    for held in records.incidents.values() {
        add(&mut hash, "incident", &(held.rev, &held.value));
    }
    for (position, event) in &records.events {
        add(&mut hash, "event", &(position, event, records.untold.contains(position)));
    }
    for (position, delivery) in &records.deliveries {
        add(&mut hash, "delivery", &(position, delivery));
    }
    for key in &records.keys {
        add(&mut hash, "key", key);
    }
    for token in &records.tokens {
        add(&mut hash, "token", token);
    }
    for channel in &records.channels {
        add(&mut hash, "channel", channel);
    }
    if let Some(held) = &records.observation {
        add(&mut hash, "observation", &(held.rev, &held.value));
    }
    hash.finalize().into()
}

fn add(hash: &mut Sha256, kind: &str, value: &impl Serialize) {
    let json = serde_json::to_vec(value).expect("every key of every map in a record is a text");
    hash.update(kind);
    // The length keeps one record from being taken for two.
    hash.update(json.len().to_be_bytes());
    hash.update(json);
}
