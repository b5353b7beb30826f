//! How the other region looks from here: found out by the sweeper, and stored, so that the notifier knows as well, and so
//! that people are told once.

use hb_core::event::Event;
use hb_core::time::Time;
use hb_store::{Committed, Result};
use serde::{Deserialize, Serialize};

use crate::calls::Condition;
use crate::item::{DOC, doc, item, json, text};
use crate::keys::{self, Key};
use crate::regions::{Absence, TAKEOVER_AFTER_MS};
use crate::store::DynamoStore;

/// How the other region looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sight {
    /// What it does arrives here.
    Seen,
    /// It works, but what it does does not arrive here.
    Cut,
    /// It does not sweep, as far as can be found out: this region stands in for it.
    Gone,
}

/// The same with its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outlook {
    /// How it looks.
    pub sight: Sight,
    /// Since when.
    pub since: Time,
    /// When that was last found out.
    pub at: Time,
    /// Its last sign of life: what arrived of it says so, or it answered.
    pub alive_at: Time,
    /// Since when people know that replication is cut; none: it is not, or they do not.
    pub cut_since: Option<Time>,
}

impl Outlook {
    /// That it is gone, if whoever reads this at `now` is to stand in for it.
    #[must_use]
    pub fn absence(&self, now: Time) -> Option<Absence> {
        // Whoever found it out comes by each minute: if he did not, he may have found out something else since.
        let is_gone = self.sight == Sight::Gone && now.since(self.at) < TAKEOVER_AFTER_MS;
        is_gone.then_some(Absence { now, alive_at: self.alive_at })
    }
}

impl DynamoStore {
    /// With the name of the other region: what was seen of an earlier second region says nothing about a new one.
    fn outlook_key(&self) -> Key {
        let what = format!("peer-{}", self.regions.peer().unwrap_or_default());
        keys::server(&keys::of_region(&what, self.regions.own()))
    }

    /// What was last found out about the other region; none: nothing yet.
    ///
    /// # Errors
    /// As all calls of the store.
    pub async fn outlook(&self) -> Result<Option<Outlook>> {
        self.table.get(&self.outlook_key(), true).await?.map(|item| doc(&item)).transpose()
    }

    /// Stores what was found out, if `before` still stands, and with it what people are to be told.
    ///
    /// # Errors
    /// As all calls of the store.
    pub async fn set_outlook(&self, before: Option<&Outlook>, now: &Outlook, events: Vec<Event>) -> Result<Committed> {
        let item = item(&self.outlook_key(), [(DOC, text(json(now)?))]);
        let condition = match before {
            None => Condition::is_new(),
            Some(before) => Condition::new("j = :j", [(":j", text(json(before)?))]),
        };
        self.put_with(item, condition, events).await
    }
}
