//! Keys, tokens and channels: few, so that lists will do.

use hb_core::access::{ApiKey, Channel, Token};
use hb_core::delivery::Status;
use hb_core::time::Time;
use hb_wire::id::ChannelId;

use super::records::Records;
use crate::TOKEN_MEMORY_MS;

impl Records {
    pub(super) fn add_key(&mut self, key: &ApiKey) -> bool {
        let free = self.keys.iter().all(|held| held.id != key.id);
        if free {
            self.keys.push(key.clone());
        }
        free
    }

    pub(super) fn revoke_key(&mut self, id: &str, now: Time) -> bool {
        let Some(key) = self.keys.iter_mut().find(|key| key.id == id && key.revoked_at.is_none()) else { return false };
        key.revoked_at = Some(now);
        true
    }

    pub(super) fn touch_key(&mut self, id: &str, now: Time) {
        if let Some(key) = self.keys.iter_mut().find(|key| key.id == id) {
            key.last_used_at = Some(now);
        }
    }

    pub(super) fn add_token(&mut self, token: &Token) -> bool {
        let free = self.tokens.iter().all(|held| held.id != token.id);
        if free {
            self.tokens.retain(|held| !is_forgotten(held, token.created_at));
            self.tokens.push(token.clone());
        }
        free
    }

    pub(super) fn list_tokens(&self, now: Time) -> Vec<Token> {
        self.tokens.iter().filter(|token| !is_forgotten(token, now)).cloned().collect()
    }

    pub(super) fn revoke_token(&mut self, id: &str, now: Time) -> bool {
        let live = |token: &&mut Token| token.id == id && token.revoked_at.is_none();
        let Some(token) = self.tokens.iter_mut().find(live) else { return false };
        token.revoked_at = Some(now);
        true
    }

    pub(super) fn add_channel(&mut self, channel: &Channel) -> bool {
        let free = self.channels.iter().all(|held| held.id != channel.id && held.name != channel.name);
        if free {
            self.channels.push(channel.clone());
        }
        free
    }

    pub(super) fn remove_channel(&mut self, id: ChannelId) -> bool {
        let before = self.channels.len();
        self.channels.retain(|channel| channel.id != id);
        if self.channels.len() == before {
            return false;
        }
        let is_pending =
            |delivery: &&hb_core::delivery::Delivery| delivery.channel == id && delivery.status == Status::Pending;
        let pending: Vec<u64> = self
            .deliveries
            .iter()
            .filter(|(_, delivery)| is_pending(delivery))
            .map(|(position, _)| *position)
            .collect();
        for position in pending {
            self.forget_delivery(position);
        }
        true
    }
}

fn is_forgotten(token: &Token, now: Time) -> bool {
    token.expires_at.plus(TOKEN_MEMORY_MS) < now
}
