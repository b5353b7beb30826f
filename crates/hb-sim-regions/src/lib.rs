//! Two simulated regions: the real application and the real functions' code, each region over its own table in DynamoDB
//! (`tools/dynamodb`), on virtual time; and between the tables replication as AWS makes it.
//!
//! `hb-sim` proves what one server promises, without any input or output. What two regions promise depends on what DynamoDB
//! does with conditions, transactions and streams, so this runs against one; that is why it is a crate of its own, and why its
//! worlds are small. What happens to a world follows from its seed; calls that run side by side may come to their end in another order,
//! so that two runs of a seed are not alike to the last nonce.
//!
//! Reading order: [`world`] (the queue and what happens), [`replica`] (replication), [`region`] (the functions), [`judge`].

use core::error::Error;

pub mod cli;
pub mod filter;
pub mod judge;
pub mod post;
pub mod region;
pub mod replica;
pub mod report;
pub mod table;
pub mod world;

/// What a world needs to go on. When it does not, it is the world that is broken, and not what it tests.
pub type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;
