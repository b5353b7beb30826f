//! The attacker: sees every message of every host, keeps some back, sends all of them again, and makes up others.

use std::sync::Arc;

use hb_wire::nonce::Nonce;

use super::faults::Heal;
use super::network::{Letter, Origin, Wire};
use super::{HOUR, Happening, World};
use crate::front::Level;

/// Captured messages that are remembered.
const CAPTURED_MAX: usize = 256;

impl World {
    /// Listens.
    pub(super) fn tap(&mut self, letter: &Letter) {
        if self.calm || !self.evil.one_in(50) {
            return;
        }
        let copy = Letter { origin: Origin::Captured, sender: None, ..letter.clone() };
        if self.captured.len() < CAPTURED_MAX {
            self.captured.push(copy);
        } else {
            let place = self.evil.within(0..CAPTURED_MAX as u64) as usize;
            self.captured[place] = copy;
        }
    }

    /// True when the attacker keeps the message, and lets it through later.
    pub(super) fn withhold(&mut self, letter: &Letter) -> bool {
        if self.calm || letter.origin != Origin::Host {
            return false;
        }
        if self.springs(letter) {
            return true;
        }
        if !self.evil.one_in(2_000) {
            return false;
        }
        self.tally.withheld += 1;
        self.judge.lossy(letter.host, self.now);
        let need = self.hosts[letter.host].terms.need();
        let mut keep = |upto: u64| self.evil.within(1_000..upto.max(2_000));
        let ms = match letter.id % 3 {
            0 => keep(need),
            1 => keep(3 * need),
            _ => keep(3 * HOUR),
        };
        let copy = Letter { origin: Origin::Captured, sender: None, ..letter.clone() };
        self.after(ms, Happening::Arrive(Box::new(copy)));
        // Now and then the whole host is kept from the server, so that the withheld message meets its death.
        if self.evil.one_in(3) {
            let cut = need + self.evil.within(0..2 * need);
            self.cut_link(letter.computer, cut);
        }
        true
    }

    /// Cuts a host off for most of its patience and makes it forget its nonce: it will get a fresh one, late in its silence.
    pub(super) fn ambush(&mut self) {
        let place = self.evil.within(0..self.hosts.len() as u64) as usize;
        let (now, need) = (self.now, self.hosts[place].terms.need());
        let computer = &mut self.computers[place];
        if !computer.is_well() || computer.ambushed {
            return;
        }
        computer.ambushed = true;
        computer.stop_agent(now, None);
        computer.disk = None;
        let life = computer.life;
        let ms = need * self.evil.within(55..75) / 100;
        self.cut_link(place, ms);
        self.after(ms + 1, Happening::Heal(Heal::AgentStart { computer: place, life }));
    }

    /// The ambush: the first beat with the fresh nonce is kept, its host cut off, and the beat handed in after the host's
    /// deadline, while its nonce still lives. Only the nonce that a DOWN renews stands between it and a dead host's return.
    fn springs(&mut self, letter: &Letter) -> bool {
        let computer = &mut self.computers[letter.computer];
        if !computer.ambushed || letter.nonce.is_none() || letter.nonce == computer.first {
            return false;
        }
        computer.ambushed = false;
        self.tally.withheld += 1;
        self.judge.lossy(letter.host, self.now);
        let need = self.hosts[letter.host].terms.need();
        let ms = need * self.evil.within(50..95) / 100;
        let copy = Letter { origin: Origin::Captured, sender: None, ..letter.clone() };
        self.after(ms, Happening::Arrive(Box::new(copy)));
        self.cut_link(letter.computer, 2 * need);
        true
    }

    /// Sends a captured message again.
    pub(super) fn replay(&mut self) {
        let Some(letter) = self.evil.pick(&self.captured).cloned() else { return };
        self.tally.replays += 1;
        self.arrive(Box::new(letter));
    }

    /// Sends what no host has ever signed. Behind the check of the signature there is nothing to forge but the nonce; through the
    /// router everything can be damaged.
    pub(super) fn forge(&mut self) {
        if self.config.level == Level::Domain {
            return;
        }
        let Some(mut letter) = self.evil.pick(&self.captured).cloned() else { return };
        let Some(wire) = letter.wire.as_deref() else { return };
        self.tally.forgeries += 1;
        letter.origin = Origin::Forged;
        let mut forged: Wire = wire.clone();
        match self.evil.within(0..5) {
            0 => forged = self.sign_as_another(&letter).unwrap_or(forged),
            1 => flip(&mut forged.signature, self.evil.roll()),
            2 => flip(&mut forged.signature_input, self.evil.roll()),
            3 => {
                let place = self.evil.within(0..forged.body.len() as u64) as usize;
                forged.body[place] ^= 1;
            }
            _ => {
                // The body and its digest agree, the signature does not.
                forged.body = br#"{"boot":"2d1f7c3e-8b0a-4c55-9e21-5f0c6a7b8c9d","seq":9,"up":1,"v":"0"}"#.to_vec();
                forged.content_digest = hb_wire::digest::content_digest(&forged.body);
            }
        }
        letter.wire = Some(Arc::new(forged));
        self.arrive(Box::new(letter));
    }

    /// A host signs in the name of another one.
    fn sign_as_another(&self, letter: &Letter) -> Option<Wire> {
        let other = (letter.host + 1) % self.hosts.len();
        let wire = self.sign(other, &letter.beat, Nonce::NONE, letter.created)?;
        let input =
            wire.signature_input.replace(&self.hosts[other].id.to_string(), &self.hosts[letter.host].id.to_string());
        Some(Wire { signature_input: input, ..Wire::clone(&wire) })
    }
}

/// Changes one letter.
fn flip(text: &mut String, random: u64) {
    let mut bytes = core::mem::take(text).into_bytes();
    let place = random % (bytes.len() as u64).max(1);
    if let Some(byte) = bytes.get_mut(place as usize) {
        *byte = if *byte == b'A' { b'B' } else { b'A' };
    }
    *text = String::from_utf8(bytes).unwrap_or_default();
}
