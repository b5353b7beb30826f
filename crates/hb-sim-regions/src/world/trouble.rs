//! What goes wrong, and how it heals.

use super::{CALM_FROM_MS, Happening, MINUTE, TROUBLE_FROM_MS, World};
use crate::replica::Pace;

/// What a world is about. Hosts die, and their ways to a region break, in each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Focus {
    /// Two healthy regions, and replication as it mostly is.
    Health,
    /// The first region is lost, and never comes back.
    LostForGood,
    /// The first region is lost for a while.
    Lost,
    /// The second region is lost for a while.
    OtherLost,
    /// Replication is cut, and the regions can still call each other.
    Cut,
    /// Replication is cut, and so is everything else between the regions.
    Parted,
    /// Replication crawls.
    Crawl,
    /// Several of these.
    Mixed,
}

/// Many worlds take turns.
pub const FOCUSES: [Focus; 8] = [
    Focus::Health,
    Focus::LostForGood,
    Focus::Lost,
    Focus::OtherLost,
    Focus::Cut,
    Focus::Parted,
    Focus::Crawl,
    Focus::Mixed,
];

impl Focus {
    /// Its name on the command line.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Health => "health",
            Self::LostForGood => "lost-for-good",
            Self::Lost => "lost",
            Self::OtherLost => "other-lost",
            Self::Cut => "cut",
            Self::Parted => "parted",
            Self::Crawl => "crawl",
            Self::Mixed => "mixed",
        }
    }
}

/// Something that goes wrong, or ends.
#[derive(Debug, Clone, Copy)]
pub(super) enum Strike {
    Die { place: usize, back_after: Option<u64> },
    Boot { place: usize, life: u32 },
    Path { place: usize, region: usize, is_open: bool },
    Region { place: usize, is_alive: bool },
    Link { is_cut: bool },
    Http { is_cut: bool },
    Pace(Pace),
}

impl World {
    /// Rolls what will happen to this world.
    pub(super) fn plan_trouble(&mut self) {
        for place in 0..self.hosts.len() {
            self.plan_host(place);
        }
        match self.focus {
            Focus::Health => {}
            Focus::LostForGood => {
                let at = self.moment();
                self.at(at, Happening::Strike(Strike::Region { place: 0, is_alive: false }));
            }
            Focus::Lost => self.plan_loss(0),
            Focus::OtherLost => self.plan_loss(1),
            Focus::Cut => self.plan_cut(false),
            Focus::Parted => self.plan_cut(true),
            Focus::Crawl => self.plan_pace(Pace::Crawling),
            Focus::Mixed => self.plan_mix(),
        }
        if self.dice.one_in(3) {
            self.plan_pace(Pace::Sluggish);
        }
        self.at(CALM_FROM_MS, Happening::Calm);
    }

    fn moment(&mut self) -> u64 {
        self.dice.within(TROUBLE_FROM_MS..CALM_FROM_MS - 8 * MINUTE)
    }

    fn plan_host(&mut self, place: usize) {
        if self.dice.one_in(2) {
            let at = self.moment();
            let back_after = (!self.dice.one_in(3)).then(|| self.dice.within(20_000..25 * MINUTE));
            self.at(at, Happening::Strike(Strike::Die { place, back_after }));
        }
        if self.dice.one_in(3) {
            let (at, lasts) = (self.moment(), self.dice.within(30_000..20 * MINUTE));
            let region = usize::from(self.dice.one_in(3));
            self.at(at, Happening::Strike(Strike::Path { place, region, is_open: false }));
            self.at(at + lasts, Happening::Strike(Strike::Path { place, region, is_open: true }));
        }
    }

    fn plan_loss(&mut self, place: usize) {
        let (at, lasts) = (self.moment(), self.dice.within(30_000..30 * MINUTE));
        self.at(at, Happening::Strike(Strike::Region { place, is_alive: false }));
        self.at(at + lasts, Happening::Strike(Strike::Region { place, is_alive: true }));
    }

    fn plan_cut(&mut self, is_parted: bool) {
        let (at, lasts) = (self.moment(), self.dice.within(MINUTE..30 * MINUTE));
        self.at(at, Happening::Strike(Strike::Link { is_cut: true }));
        self.at(at + lasts, Happening::Strike(Strike::Link { is_cut: false }));
        if is_parted {
            // Not to the second the same.
            let (early, late) = (self.dice.within(0..90_000), self.dice.within(0..90_000));
            self.at(at + early, Happening::Strike(Strike::Http { is_cut: true }));
            self.at(at + lasts + late, Happening::Strike(Strike::Http { is_cut: false }));
        }
    }

    fn plan_pace(&mut self, pace: Pace) {
        let (at, lasts) = (self.moment(), self.dice.within(2 * MINUTE..20 * MINUTE));
        self.at(at, Happening::Strike(Strike::Pace(pace)));
        self.at(at + lasts, Happening::Strike(Strike::Pace(Pace::Brisk)));
    }

    fn plan_mix(&mut self) {
        if self.dice.one_in(2) {
            self.plan_pace(Pace::Crawling);
        }
        let lost = usize::from(self.dice.one_in(2));
        if self.dice.one_in(2) {
            self.plan_loss(lost);
        }
        if self.dice.one_in(2) {
            let is_parted = self.dice.one_in(3);
            self.plan_cut(is_parted);
        }
        if self.dice.one_in(2) {
            let (at, lasts) = (self.moment(), self.dice.within(MINUTE..15 * MINUTE));
            self.at(at, Happening::Strike(Strike::Http { is_cut: true }));
            self.at(at + lasts, Happening::Strike(Strike::Http { is_cut: false }));
        }
    }

    pub(super) fn strike(&mut self, strike: Strike) {
        // What would come after everything has healed is left out.
        let is_trouble = match strike {
            Strike::Die { .. } => true,
            Strike::Path { is_open, .. } => !is_open,
            Strike::Region { is_alive, .. } => !is_alive,
            Strike::Link { is_cut } | Strike::Http { is_cut } => is_cut,
            Strike::Pace(pace) => pace != Pace::Brisk,
            Strike::Boot { .. } => false,
        };
        if self.is_calm && is_trouble {
            return;
        }
        self.say(|| format!("{strike:?}"));
        match strike {
            Strike::Die { place, back_after } => self.die(place, back_after),
            Strike::Boot { place, life } => {
                if self.hosts[place].computer.life == life {
                    self.boot(place);
                }
            }
            Strike::Path { place, region, is_open } => self.hosts[place].paths[region] = is_open,
            Strike::Region { place, is_alive } => self.set_alive(place, is_alive),
            Strike::Link { is_cut } => {
                self.is_link_cut = is_cut;
                self.judge.link(is_cut, self.now);
                self.set_lanes();
            }
            Strike::Http { is_cut } => {
                self.is_http_cut = is_cut;
                self.judge.http(is_cut, self.now);
                self.set_reach();
            }
            Strike::Pace(pace) => self.replication.pace = pace,
        }
    }

    /// Everything heals but what was lost for good.
    pub(super) fn calm(&mut self) {
        self.is_calm = true;
        self.say(|| "from here on all is well".to_owned());
        for place in 0..self.hosts.len() {
            self.hosts[place].paths = [true, true];
            let (is_off, life) = (!self.hosts[place].computer.on, self.hosts[place].computer.life);
            if is_off && self.dice.one_in(2) {
                let at = self.dice.within(0..5 * MINUTE);
                self.after(at, Happening::Strike(Strike::Boot { place, life }));
            }
        }
        for place in 0..2 {
            if self.focus != Focus::LostForGood || place == 1 {
                self.set_alive(place, true);
            }
        }
        if self.is_link_cut {
            self.strike(Strike::Link { is_cut: false });
        }
        if self.is_http_cut {
            self.strike(Strike::Http { is_cut: false });
        }
        self.replication.pace = Pace::Brisk;
    }

    fn set_alive(&mut self, place: usize, is_alive: bool) {
        if self.regions[place].is_alive == is_alive || (!is_alive && !self.regions[1 - place].is_alive) {
            return;
        }
        self.regions[place].is_alive = is_alive;
        self.judge.region(place, is_alive, self.now);
        self.set_lanes();
        self.set_reach();
        if is_alive {
            let late = self.net.within(1_000..30_000);
            self.after(late, Happening::Stream(place));
        }
    }

    /// What a lost region has not sent stays there, and nothing is brought to it.
    fn set_lanes(&mut self) {
        let is_cut = self.is_link_cut || self.regions.iter().any(|region| !region.is_alive);
        for to in 0..2 {
            if is_cut {
                self.replication.cut(to);
            } else if self.replication.is_cut(to) {
                self.replication.heal(to, self.now);
                self.planned[to] = None;
                self.plan(to);
            }
        }
    }

    fn set_reach(&self) {
        for region in &self.regions {
            region.set_reach(region.is_alive && !self.is_http_cut);
        }
    }

    fn die(&mut self, place: usize, back_after: Option<u64>) {
        let computer = &mut self.hosts[place].computer;
        computer.stop_agent(self.now, None);
        computer.on = false;
        self.judge.tally.deaths += 1;
        let life = computer.life;
        if let Some(ms) = back_after {
            self.after(ms, Happening::Strike(Strike::Boot { place, life }));
        }
    }

    pub(super) fn boot(&mut self, place: usize) {
        let now = self.now;
        let host = &mut self.hosts[place];
        host.computer.boot(now, &mut self.dice);
        host.start_agent(now, &mut self.dice);
        self.act(place);
    }
}
