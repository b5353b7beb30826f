//! Changes that are too large for one transaction: first all of their events in one item, then one by one.

use hb_store::{Result, StoreError};

use super::{Placed, Wrote};
use crate::calls::{Condition, Query};
use crate::item::{DOC, Item, corrupt, from_json, item, json, need_text, number, some_number, text};
use crate::keys::{self, Key};
use crate::pages;
use crate::store::DynamoStore;
use crate::transaction::{Outcome, Role, Transaction};

impl DynamoStore {
    pub(super) async fn write_staged(&self, base: &Transaction, events: Vec<Placed>) -> Result<Wrote> {
        let first = events.first().map_or(0, |placed| placed.position);
        let key = Key::new(keys::all(keys::STAGED), keys::position(first));
        let document = json(&events)?;
        let pages = pages::write(&self.table, &staged_name(&key), &document).await?;
        let mut staged = match pages {
            0 => item(&key, [(DOC, text(document))]),
            pages => item(&key, [("b", number(pages))]),
        };
        self.regions.sign(&mut staged);
        let mut transaction = base.clone();
        transaction.put(&self.table, Role::Free, staged.clone(), None)?;
        match transaction.run(&self.table).await? {
            Outcome::Done => {
                // The decision stands, whatever follows: never say that nothing was done.
                self.finish(&staged).await.map_err(|error| match error {
                    StoreError::Overloaded => StoreError::Unavailable("a large change is written in part".into()),
                    StoreError::Unavailable(_) | StoreError::Corrupt(_) => error,
                })?;
                Ok(Wrote::Done)
            }
            outcome @ (Outcome::Refused(_) | Outcome::Contended) => {
                self.table.delete_many(pages::keys_of(&staged_name(&key), pages)).await?;
                self.forget_pages(&events).await?;
                Ok(match outcome {
                    Outcome::Refused(refusals) => Wrote::Refused(refusals),
                    Outcome::Done | Outcome::Contended => Wrote::Contended,
                })
            }
        }
    }

    /// Puts the events of changes in place that were too large for one transaction, and whose writers did not get to it.
    pub(crate) async fn finish_staged(&self) -> Result<()> {
        // At half the price: what lies here a writer left that died, or is still at it. Whether it does is checked by the write.
        let query = Query { consistent: false, ..Query::all(keys::all(keys::STAGED)) };
        let mut staged = self.table.query(&query).await?;
        // Another region's is being finished there.
        staged.retain(|item| self.regions.deals_with(item));
        for staged in staged {
            self.finish(&staged).await?;
        }
        Ok(())
    }

    async fn finish(&self, staged: &Item) -> Result<()> {
        let key = Key::of(staged).ok_or_else(|| corrupt(staged, "s"))?;
        let pages = some_number(staged, "b")?.unwrap_or(0);
        let document = match pages {
            0 => need_text(staged, DOC)?.to_owned(),
            pages => match pages::read(&self.table, &staged_name(&key), pages).await {
                Ok(document) => document,
                // Somebody else finished it meanwhile.
                Err(_) if self.table.get(&key, true).await?.is_none() => return Ok(()),
                Err(error) => return Err(error),
            },
        };
        let events: Vec<Placed> = from_json(&document)?;
        let mut base = Transaction::default();
        // Whoever is late must not bring events back that were told and forgotten since.
        base.check(&self.table, Role::Basis, &key, Condition::exists())?;
        let mut some: (Transaction, Vec<Placed>) = (base.clone(), Vec::new());
        for placed in events {
            let writes = self.writes_of(0, &placed)?;
            if !some.0.has_room_for(&writes) {
                let (_, full) = core::mem::replace(&mut some, (base.clone(), Vec::new()));
                if !self.is_written(&base, full).await? {
                    return Ok(());
                }
            }
            some.0.append(writes);
            some.1.push(placed);
        }
        if self.is_written(&base, some.1).await? {
            self.table.delete_many([key.clone()]).await?;
            self.table.delete_many(pages::keys_of(&staged_name(&key), pages)).await?;
        }
        Ok(())
    }

    /// `false`: somebody else finished it meanwhile.
    async fn is_written(&self, base: &Transaction, events: Vec<Placed>) -> Result<bool> {
        match self.write_at_once(base, events).await? {
            Wrote::Done => Ok(true),
            Wrote::Refused(_) => Ok(false),
            Wrote::Contended => Err(StoreError::Overloaded),
        }
    }
}

/// What a staged item's pages are called.
fn staged_name(key: &Key) -> String {
    format!("W{}", key.sk)
}
