//! How a world begins.

use std::collections::BinaryHeap;

use hb::agent::cadence::Cadence;
use hb_api::id_key::IdKey;
use hb_core::access::Channel;
use hb_core::host::Wish;
use hb_core::ledger::Ledger;
use hb_core::machine::{self, Moment};
use hb_core::policy::Policy;
use hb_core::time::Time;
use hb_lambda::environment::Peer;
use hb_sim::computer::Computer;
use hb_sim::dice::Dice;
use hb_sim::server::EPOCH_MS;
use hb_store::{Credential, Enrolled, Store as _};
use hb_wire::id::ChannelId;
use hb_wire::key::HostKey;
use hb_wire::name::{HostName, Tags};
use hb_wire::nonce::Nonce;
use hb_wire::view::Class;

use super::{Config, Happening, Host, MINUTE, World};
use crate::Outcome;
use crate::judge::Judge;
use crate::post::{Mailbox, SimClock};
use crate::region::{AUTHORITIES, Common, NAMES, Ports, Region};
use crate::replica::Replication;
use crate::table::Tables;
use crate::world::FOCUSES;

/// Interval and grace that hosts ask for, in seconds.
const TERMS: [(u64, u64); 4] = [(60, 120), (60, 120), (60, 180), (120, 240)];
/// What the sweepers' own hosts ask for, in milliseconds.
const CANARY_NEED_MS: u64 = 180_000;

impl Host {
    /// Its agent starts, with the addresses of both regions.
    pub(super) fn start_agent(&mut self, now: u64, dice: &mut Dice) {
        self.computer.start_agent(now, dice);
        let cadence = Cadence::new(self.computer.id, self.interval_s, AUTHORITIES.len(), self.computer.clock(now));
        if let Some(agent) = self.computer.agent.as_mut() {
            agent.cadence = cadence;
        }
    }
}

impl World {
    pub(super) async fn new(config: Config) -> Outcome<Self> {
        let mut dice = Dice::new(config.seed);
        let turn = usize::try_from(config.seed % FOCUSES.len() as u64)?;
        let focus = config.focus.unwrap_or(FOCUSES[turn]);
        let tables = Tables::start().await?;
        let common = Common {
            clock: SimClock::default(),
            mailbox: Mailbox::default(),
            ids: IdKey::new(dice.bytes()),
            secret: dice.bytes(),
        };
        let regions = Box::pin(start_regions(&tables, &common, &mut dice)).await?;
        let mut world = Self {
            focus,
            now: 0,
            seq: 0,
            queue: BinaryHeap::new(),
            clock: common.clock.clone(),
            mailbox: common.mailbox.clone(),
            tables,
            replication: Replication::new(dice.fork()),
            planned: [None, None],
            regions,
            hosts: Vec::new(),
            net: dice.fork(),
            dice,
            is_calm: false,
            is_link_cut: false,
            is_http_cut: false,
            judge: Judge::default(),
            config,
        };
        world.open_channel().await?;
        world.enrol(&common.ids).await?;
        world.settle().await?;
        world.plan_trouble();
        for place in 0..world.hosts.len() {
            let after = world.dice.within(0..MINUTE);
            let life = world.hosts[place].computer.life;
            world.at(after, Happening::Strike(super::trouble::Strike::Boot { place, life }));
        }
        world.at(MINUTE, Happening::Minute(0));
        world.at(MINUTE + 7_000, Happening::Minute(1));
        Ok(world)
    }

    async fn open_channel(&mut self) -> Outcome<()> {
        let channel = Channel {
            id: ChannelId::mint(EPOCH_MS, self.dice.bytes()),
            name: "everybody".to_owned(),
            kind: "sim".to_owned(),
            settings: serde_json::Value::Null,
            target: "the mailbox".to_owned(),
            admin: true,
            created_at: Time(EPOCH_MS),
            last_delivered_at: None,
            last_error: None,
        };
        self.regions[0].notifier.store.add_channel(&channel).await?;
        Ok(())
    }

    async fn enrol(&mut self, ids: &IdKey) -> Outcome<()> {
        let count = self.dice.within(6..13);
        for place in 0..usize::try_from(count)? {
            let (interval_s, grace_s) = self.dice.pick(&TERMS).copied().unwrap_or(TERMS[0]);
            let (id, key) = (ids.mint(EPOCH_MS, self.dice.bytes()), HostKey::from_seed(self.dice.bytes()));
            let wish = Wish {
                name: HostName::parse(&format!("host-{place:02}")).map_err(|error| error.to_string())?,
                tags: Tags::default(),
                class: Class::Server,
                interval_s,
                grace_s,
                max_away_s: None,
            };
            let (now, fresh) = (Time(EPOCH_MS), Nonce(self.dice.bytes()));
            let host = wish.enrol(id, key.public(), fresh, now);
            let moment = Moment { now, ledger: &Ledger::default(), policy: &Policy::STANDARD, fresh };
            let event = machine::registered(&host, &moment);
            let enrolled = self.regions[0].notifier.store.enrol(&host, &event, &Credential::Trusted, now).await?;
            if enrolled != Enrolled::Done {
                return Err(format!("host {place} could not be enrolled: {enrolled:?}").into());
            }
            let computer = Computer::new(place, id, fresh, interval_s, &mut self.dice);
            self.judge.host(id, format!("host {place}"), (host.interval_ms, host.need_ms()));
            self.hosts.push(Host { key, computer, paths: [true, true], interval_s });
        }
        Ok(())
    }

    /// Both regions know the same before the first minute.
    async fn settle(&mut self) -> Outcome<()> {
        for (place, name) in NAMES.into_iter().enumerate() {
            self.regions[place].canary.enrol().await?;
            self.judge.canary(place, self.regions[place].canary.id(), name, (MINUTE, CANARY_NEED_MS));
            let records = self.replication.collect(&mut self.tables, place, 0)?;
            self.wake(place, records);
            let records = self.replication.apply(&mut self.tables, 1 - place, MINUTE / 2)?;
            self.wake(1 - place, records);
        }
        Ok(())
    }
}

async fn start_regions(tables: &Tables, common: &Common, dice: &mut Dice) -> Outcome<[Region; 2]> {
    let client = tables.client();
    let ports = [Ports::open().await?, Ports::open().await?];
    let urls = ports.each_ref().map(|ports| ports.api_url.clone());
    let peer = |place: usize| Peer {
        region: NAMES[place].to_owned(),
        url: urls[place].clone(),
        topic: format!("arn:aws:sns:{}:123456789012:hb", NAMES[place]),
    };
    let [first, second] = ports;
    Ok([
        Region::start(0, &client, common, first, &peer(1), dice).await?,
        Region::start(1, &client, common, second, &peer(0), dice).await?,
    ])
}
