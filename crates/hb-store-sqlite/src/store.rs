//! The store: which work goes to the writer, and which to the readers.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use hb_core::access::{ApiKey, Channel, Token};
use hb_core::delivery::{Delivery, Status};
use hb_core::event::{Event, Subject};
use hb_core::host::Host;
use hb_core::incident::{Group, Incident};
use hb_core::ledger::Ledger;
use hb_core::observer::Observation;
use hb_core::policy::Policy;
use hb_core::time::Time;
use hb_store::{
    Backlog, Beat, Beaten, Change, Committed, Credential, Enrolled, EventQuery, Fleet, HostQuery, Listed, PAGE_MAX,
    Result, Store, Versioned,
};
use hb_wire::id::{ChannelId, DeliveryId, EventId, HostId, IncidentId};
use hb_wire::key::PublicKey;
use hb_wire::name::Tags;
use rusqlite::Connection;

use crate::check::Problem;
use crate::due::Look;
use crate::failure::{Failure, Outcome};
use crate::number::{json, number};
use crate::open::{Lock, OpenError, Options};
use crate::readers::Readers;
use crate::writer::Writer;
use crate::{access, backup, check, due, events, hosts, open, outbox, schema, silence};

/// A [`Store`] in a data directory. Dropping it finishes what is queued and closes the database.
#[derive(Debug)]
pub struct SqliteStore {
    path: PathBuf,
    // In this order they are dropped: the writer last, because only who may write folds the log into the database when it
    // closes; then the lock goes.
    readers: Readers,
    writer: Writer,
    _lock: Lock,
}

impl SqliteStore {
    /// Opens a data directory for this process alone, and brings its database to this program's version.
    ///
    /// # Errors
    /// Each variant of [`OpenError`] says what was found, where, and what to do.
    pub fn open(dir: &Path, options: &Options) -> core::result::Result<Self, OpenError> {
        if options.create {
            open::make_dir(dir)?;
        }
        let path = crate::database(dir);
        if !options.create && !open::is_there(&path)? {
            return Err(OpenError::Missing { path });
        }
        let lock = Lock::take(dir)?;
        let db = open::open(&path, options)?;
        let readers = (0..options.readers.max(1))
            .map(|_| schema::open_reader(&path, options.cache_kib / 4))
            .collect::<rusqlite::Result<Vec<_>>>()
            .map_err(|error| OpenError::of(&path, error))?;
        let threads = |source| OpenError::io("start the threads for", &path, source);
        let (again, same) = (path.clone(), options.clone());
        let opener = Box::new(move || open::writer(&again, &same).map_err(Failure::from));
        let writer = Writer::start(db, opener, options.queue.max(1)).map_err(threads)?;
        let readers = Readers::start(readers, options.queue.max(1)).map_err(threads)?;
        Ok(Self { path, writer, readers, _lock: lock })
    }

    /// True after an I/O error, until the database could be opened anew; writes are refused meanwhile.
    pub fn has_failed(&self) -> bool {
        self.writer.has_failed()
    }

    /// Copies the database as it is now into one file, while beats go on. Blocks until it is on the disk; refuses to
    /// overwrite. Works from any process: see [`SqliteStore::backup_dir`].
    pub fn backup(&self, to: &Path) -> core::result::Result<(), OpenError> {
        backup::backup(&self.path, to)
    }

    /// As [`SqliteStore::backup`], for a data directory that a server may be using at the moment.
    pub fn backup_dir(dir: &Path, to: &Path) -> core::result::Result<(), OpenError> {
        backup::backup(&crate::database(dir), to)
    }

    /// Puts a backup in the place of the database of a data directory that nobody uses. The backup is checked first; what is
    /// replaced is kept, under the name that is returned. Ids of events will differ from all that were made before.
    pub fn restore(dir: &Path, from: &Path) -> core::result::Result<Option<PathBuf>, OpenError> {
        backup::restore(dir, from)
    }

    /// What is wrong with the database of a data directory; a server may be using it at the moment.
    pub fn check(dir: &Path) -> core::result::Result<Vec<Problem>, OpenError> {
        check::check_file(&crate::database(dir))
    }

    /// What is wrong with this database.
    pub async fn integrity(&self) -> Result<Vec<Problem>> {
        self.read(|db| Ok(check::check(db))).await
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Outcome<T> + Send + 'static,
    ) -> Result<T> {
        self.readers.read(work).await
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn beat(&self, beat: Beat) -> Result<Beaten> {
        self.writer.once(move |db| hosts::beat(db, &beat)).await
    }

    async fn host(&self, id: HostId) -> Result<Option<Versioned<Host>>> {
        self.read(move |db| hosts::get(db, id)).await
    }

    async fn host_by_key(&self, key: &PublicKey) -> Result<Option<Versioned<Host>>> {
        let key = *key;
        self.read(move |db| hosts::by_key(db, &key)).await
    }

    async fn hosts(&self, query: &HostQuery) -> Result<Vec<Versioned<Host>>> {
        let query = query.clone();
        self.read(move |db| hosts::list(db, &query)).await
    }

    async fn enrol(&self, host: &Host, event: &Event, credential: &Credential, now: Time) -> Result<Enrolled> {
        let (host, event, credential) = (host.clone(), event.clone(), credential.clone());
        self.writer.whole(move |db| hosts::enrol(db, &host, &event, &credential, now)).await
    }

    async fn commit(&self, change: Change) -> Result<Committed> {
        self.writer.whole(move |db| hosts::commit(db, &change)).await
    }

    async fn due(&self, now: Time, ledger: &Ledger, policy: &Policy, limit: usize) -> Result<Vec<Versioned<Host>>> {
        let limit = limit.min(PAGE_MAX);
        if limit == 0 || !self.read(move |db| due::any(db, now)).await? {
            return Ok(Vec::new());
        }
        while self.writer.once(move |db| due::advance(db, now)).await? == PAGE_MAX {}
        loop {
            let (ledger, policy) = (ledger.clone(), policy.clone());
            match self.read(move |db| due::look(db, now, &ledger, &policy, limit)).await? {
                Look::Due(hosts) => return Ok(hosts),
                Look::Early(moves) => self.writer.whole(move |db| due::shift(db, &moves)).await?,
            }
        }
    }

    async fn next_due(&self) -> Result<Option<Time>> {
        self.read(due::next).await
    }

    async fn fleet(&self, now: Time) -> Result<Fleet> {
        self.read(move |db| silence::fleet(db, now)).await
    }

    async fn silence(&self, now: Time, tags: &Tags) -> Result<Vec<Group>> {
        let tags = tags.clone();
        self.read(move |db| silence::groups(db, now, &tags)).await
    }

    async fn silent(&self, now: Time, tag: Option<&(String, String)>, limit: usize) -> Result<Vec<Subject>> {
        let tag = tag.cloned();
        self.read(move |db| silence::silent(db, now, tag.as_ref(), limit)).await
    }

    async fn open_incidents(&self) -> Result<Vec<Versioned<Incident>>> {
        self.read(|db| {
            let mut statement = db.prepare_cached("SELECT rev, doc FROM incidents WHERE is_open = 1 ORDER BY id")?;
            let mut rows = statement.query([])?;
            let mut incidents = Vec::new();
            while let Some(row) = rows.next()? {
                incidents.push(Versioned { value: json(row, "doc")?, rev: number(row, "rev")? });
            }
            Ok(incidents)
        })
        .await
    }

    async fn down_in(&self, incident: IncidentId, limit: usize) -> Result<Vec<Subject>> {
        self.read(move |db| silence::down_in(db, incident, limit)).await
    }

    async fn event(&self, id: EventId) -> Result<Option<Event>> {
        self.read(move |db| events::get(db, id)).await
    }

    async fn events(&self, query: &EventQuery) -> Result<Vec<Listed<Event>>> {
        let query = query.clone();
        self.read(move |db| events::list(db, &query)).await
    }

    async fn untold(&self, limit: usize) -> Result<Vec<Event>> {
        self.read(move |db| events::untold(db, limit)).await
    }

    async fn tell(&self, event: EventId, deliveries: &[Delivery]) -> Result<()> {
        let deliveries = deliveries.to_vec();
        self.writer.whole(move |db| outbox::tell(db, event, &deliveries)).await
    }

    async fn claim(&self, now: Time, until: Time, limit: usize) -> Result<Vec<Delivery>> {
        self.writer.whole(move |db| outbox::claim(db, now, until, limit)).await
    }

    async fn next_claim(&self) -> Result<Option<Time>> {
        self.read(outbox::next_claim).await
    }

    async fn settle(&self, delivery: &Delivery, lease: Time) -> Result<bool> {
        let delivery = delivery.clone();
        self.writer.whole(move |db| outbox::settle(db, &delivery, lease)).await
    }

    async fn deliveries_of(&self, incident: IncidentId) -> Result<Vec<Delivery>> {
        self.read(move |db| outbox::of_incident(db, incident)).await
    }

    async fn delivery(&self, id: DeliveryId) -> Result<Option<Delivery>> {
        self.read(move |db| outbox::get(db, id)).await
    }

    async fn revive(&self, revived: &Delivery) -> Result<bool> {
        let revived = revived.clone();
        self.writer.whole(move |db| outbox::revive(db, &revived)).await
    }

    async fn deliveries(
        &self,
        status: Option<Status>,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Listed<Delivery>>> {
        self.read(move |db| outbox::list(db, status, after, limit)).await
    }

    async fn backlog(&self) -> Result<Backlog> {
        self.read(outbox::backlog).await
    }

    async fn add_key(&self, key: &ApiKey) -> Result<bool> {
        let key = key.clone();
        self.writer.whole(move |db| access::add_key(db, &key)).await
    }

    async fn key(&self, id: &str) -> Result<Option<ApiKey>> {
        let id = id.to_owned();
        self.read(move |db| access::key(db, &id)).await
    }

    async fn keys(&self) -> Result<Vec<ApiKey>> {
        self.read(access::keys).await
    }

    async fn revoke_key(&self, id: &str, now: Time) -> Result<bool> {
        let id = id.to_owned();
        self.writer.whole(move |db| access::revoke_key(db, &id, now)).await
    }

    async fn touch_key(&self, id: &str, now: Time) -> Result<()> {
        let id = id.to_owned();
        self.writer.whole(move |db| access::touch_key(db, &id, now)).await
    }

    async fn add_token(&self, token: &Token) -> Result<bool> {
        let token = token.clone();
        self.writer.whole(move |db| access::add_token(db, &token)).await
    }

    async fn token(&self, id: &str) -> Result<Option<Token>> {
        let id = id.to_owned();
        self.read(move |db| access::token(db, &id)).await
    }

    async fn tokens(&self, now: Time) -> Result<Vec<Token>> {
        self.read(move |db| access::tokens(db, now)).await
    }

    async fn revoke_token(&self, id: &str, now: Time) -> Result<bool> {
        let id = id.to_owned();
        self.writer.whole(move |db| access::revoke_token(db, &id, now)).await
    }

    async fn add_channel(&self, channel: &Channel) -> Result<bool> {
        let channel = channel.clone();
        self.writer.whole(move |db| access::add_channel(db, &channel)).await
    }

    async fn channels(&self) -> Result<Vec<Channel>> {
        self.read(access::channels).await
    }

    async fn remove_channel(&self, id: ChannelId) -> Result<bool> {
        self.writer.whole(move |db| access::remove_channel(db, id)).await
    }

    async fn observation(&self) -> Result<Option<Versioned<Observation>>> {
        self.read(access::observation).await
    }

    async fn observe(&self, observation: Versioned<Observation>, events: Vec<Event>) -> Result<Committed> {
        self.writer.whole(move |db| access::observe(db, &observation, &events)).await
    }
}
