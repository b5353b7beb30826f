//! hb's store on AWS: one DynamoDB table.
//!
//! # The table
//!
//! One partition key (`p`) and one sort key (`s`), both texts, one time to live (`t`), a stream with both images, no index
//! ([`table::definition`]). What is where is said by [`keys`], and nowhere else; attributes are one letter long, since their
//! names are stored, and paid for, with each item. It is never scanned.
//!
//! - **Slim items** (`L#<shard>`): one for each host that is not retired, 150 to 200 bytes. A beat is one conditional
//!   `UpdateItem` of it: 1 unit, no read, no index; when the condition does not hold, the same answer brings the item as it
//!   is, and so the reason. A sweep reads the shards, eventually consistent: about 22 units for 1,000 hosts.
//! - **Documents** (`H#<host>`): the host as it was last decided about. A generation number ties it to its slim item.
//! - Around it, one small item for each way to find a host: by key, by name, in the order of names, by tag, by incident.
//! - **Events** (`E#`, `V#`, `T#`, `U#`), **incidents** with their members as items of their own (`I#`, `O#`, `X#`),
//!   **deliveries** (`Q#`, `F#`, `D#`), keys, tokens, channels, and what the server knows of itself.
//!
//! # Units
//!
//! Units are those of on-demand billing: a write costs 1 for each KB, a transaction twice that, a read ½ for each 4 KB and
//! twice that when it is consistent. [`DynamoStore::spent`] adds up what DynamoDB itself says was consumed; the tests in
//! `tests/it/cost.rs` hold the figures. Times are milliseconds, but for `t` and `u`, which are seconds.
//!
//! # Decisions
//!
//! A decision is one `TransactWriteItems`, conditional on what it was made from: the host's slim item and document, the
//! places that follow from it, the incident, the events, and what has them told. What is too large for one transaction is
//! staged in it and put in place right after ([`events`](self)); long lists are written in pages before what points at them.
//!
//! # The time to live
//!
//! is a backstop: a slim item carries its deadline plus an hour. While sweeps work, a host is decided about long before. If
//! none did, DynamoDB removes the item at some time, and who reads the stream puts it back ([`DynamoStore::put_back`]) and
//! has the host judged.
//!
//! # Two regions
//!
//! The table may have a replica in another region, with functions of its own over it ([`DynamoStore::beside`]). Replication
//! is asynchronous and keeps the later of two writes of an item. So every host, event, delivery and incident has an owner, the
//! region that heard or made it (`g`), and only that one deals with it, unless the other one stands in for it
//! ([`DynamoStore::stand_in`]). Of two decisions at the same time the one that was overwritten is seen in the stream, and both
//! are put together ([`DynamoStore::mend`], [`DynamoStore::unite`]). Before a host is accused, the other region is asked
//! ([`DynamoStore::asking`]). A beat still costs one unit and no read; the first one in another region is decided about.
//!
//! # Use
//!
//! ```no_run
//! use hb_store_dynamodb::{Connection, DynamoStore, Usage};
//!
//! # async fn open(access_key_id: String, secret_access_key: String) -> hb_store::Result<()> {
//! let region = "eu-central-1".to_owned();
//! let connection = Connection { region, endpoint: None, access_key_id, secret_access_key, session_token: None };
//! let store = DynamoStore::open(connection.client(), "hb", Usage { shards: 16, region: String::new() }).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Sources
//!
//! The limits and prices are those of the DynamoDB developer guide, as of autumn 2026: 400 KB for an item, 100 writes and
//! 4 MB for a transaction, 1 MB for a page.

mod access;
mod calls;
mod connection;
mod events;
mod failure;
mod hosts;
pub mod image;
mod incidents;
mod item;
pub mod keys;
mod live;
mod outbox;
mod pack;
mod pages;
mod peer;
mod positions;
mod regions;
mod registry;
mod repair;
mod silence;
mod store;
pub mod table;
mod transaction;
mod version;
mod witness;

pub use aws_sdk_dynamodb::Client;
pub use calls::Spent;
pub use connection::Connection;
pub use live::TTL_SLACK_S;
pub use peer::{Outlook, Sight};
pub use regions::{Absence, TAKEOVER_AFTER_MS};
pub use store::{DynamoStore, SHARDS_MAX, Usage};
pub use witness::{ASKED_MAX, Witness};
