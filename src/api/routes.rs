//! One function per route.

use hb_wire::id::{ChannelId, DeliveryId, HostId};
use hb_wire::view::{
    ChannelList, ChannelRequest, ChannelView, DeliveryPage, DeliveryView, EventPage, EventView, HostPage, HostPatch,
    HostView, KeyList, KeyRequest, KeyView, PauseRequest, TestResult, TokenList, TokenRequest, TokenView, WhyView,
};
use http::Method;
use jiff::Timestamp;

use super::{Api, Page, Param, body};
use crate::error::Failure;

impl Page for EventPage {
    fn next_cursor(&mut self) -> Option<String> {
        self.next_cursor.take()
    }
}

impl Page for DeliveryPage {
    fn next_cursor(&mut self) -> Option<String> {
        self.next_cursor.take()
    }
}

impl Api<'_> {
    /// Asks for as little as possible, to see whether the server takes the key (scope `read`).
    pub fn probe(&self) -> Result<(), Failure> {
        self.read::<serde_json::Value>("/v1/hosts", &[("limit", "1")]).map(drop)
    }

    /// What the server says about the whole fleet, with as few hosts as possible.
    pub fn fleet(&self) -> Result<HostPage, Failure> {
        self.read("/v1/hosts", &[("limit", "1")])
    }

    /// `GET /v1/hosts/{id}`.
    pub fn host_by_id(&self, id: HostId) -> Result<HostView, Failure> {
        self.read(&format!("/v1/hosts/{id}"), &[])
    }

    /// `PATCH /v1/hosts/{id}`.
    pub fn patch_host(&self, id: HostId, patch: &HostPatch) -> Result<HostView, Failure> {
        self.change(&Method::PATCH, &format!("/v1/hosts/{id}"), Some(body(patch)))
    }

    /// `DELETE /v1/hosts/{id}`.
    pub fn retire_host(&self, id: HostId) -> Result<(), Failure> {
        self.order(&Method::DELETE, &format!("/v1/hosts/{id}"))
    }

    /// `POST /v1/hosts/{id}/pause`.
    pub fn pause_host(&self, id: HostId, request: &PauseRequest) -> Result<HostView, Failure> {
        self.change(&Method::POST, &format!("/v1/hosts/{id}/pause"), Some(body(request)))
    }

    /// `POST /v1/hosts/{id}/resume`.
    pub fn resume_host(&self, id: HostId) -> Result<HostView, Failure> {
        self.change(&Method::POST, &format!("/v1/hosts/{id}/resume"), None)
    }

    /// `GET /v1/hosts/{id}/why`.
    pub fn why(&self, id: HostId) -> Result<WhyView, Failure> {
        self.read(&format!("/v1/hosts/{id}/why"), &[])
    }

    /// The latest events since a moment, of one host or of all, oldest first; and whether there were more than `max`.
    pub fn events(
        &self,
        host: Option<HostId>,
        since: Timestamp,
        max: usize,
    ) -> Result<(Vec<EventView>, bool), Failure> {
        let path = host.map_or_else(|| "/v1/events".to_owned(), |id| format!("/v1/hosts/{id}/events"));
        let since_text = since.to_string();
        let mut events = Vec::new();
        self.pages(&path, &[("since", &since_text)], |mut page: EventPage| {
            events.append(&mut page.events);
            events.len() <= max
        })?;
        let more = events.len() > max;
        events.truncate(max);
        events.reverse();
        Ok((events, more))
    }

    /// `POST /v1/keys`.
    pub fn create_key(&self, request: &KeyRequest) -> Result<KeyView, Failure> {
        self.change(&Method::POST, "/v1/keys", Some(body(request)))
    }

    /// `GET /v1/keys`.
    pub fn keys(&self) -> Result<Vec<KeyView>, Failure> {
        self.read::<KeyList>("/v1/keys", &[]).map(|list| list.keys)
    }

    /// `DELETE /v1/keys/{id}`.
    pub fn revoke_key(&self, id: &str) -> Result<(), Failure> {
        self.order(&Method::DELETE, &format!("/v1/keys/{id}"))
    }

    /// `POST /v1/tokens`.
    pub fn create_token(&self, request: &TokenRequest) -> Result<TokenView, Failure> {
        self.change(&Method::POST, "/v1/tokens", Some(body(request)))
    }

    /// `GET /v1/tokens`.
    pub fn tokens(&self) -> Result<Vec<TokenView>, Failure> {
        self.read::<TokenList>("/v1/tokens", &[]).map(|list| list.tokens)
    }

    /// `DELETE /v1/tokens/{id}`.
    pub fn revoke_token(&self, id: &str) -> Result<(), Failure> {
        self.order(&Method::DELETE, &format!("/v1/tokens/{id}"))
    }

    /// `POST /v1/channels`.
    pub fn add_channel(&self, request: &ChannelRequest) -> Result<ChannelView, Failure> {
        self.change(&Method::POST, "/v1/channels", Some(body(request)))
    }

    /// `GET /v1/channels`.
    pub fn channels(&self) -> Result<Vec<ChannelView>, Failure> {
        self.read::<ChannelList>("/v1/channels", &[]).map(|list| list.channels)
    }

    /// `DELETE /v1/channels/{id}`.
    pub fn remove_channel(&self, id: ChannelId) -> Result<(), Failure> {
        self.order(&Method::DELETE, &format!("/v1/channels/{id}"))
    }

    /// `POST /v1/channels/{id}/test`.
    pub fn test_channel(&self, id: ChannelId) -> Result<TestResult, Failure> {
        self.change(&Method::POST, &format!("/v1/channels/{id}/test"), None)
    }

    /// The latest deliveries, newest first; and whether there were more than `max`.
    pub fn deliveries(&self, status: Option<&str>, max: usize) -> Result<(Vec<DeliveryView>, bool), Failure> {
        let query: Vec<Param<'_>> = status.map(|status| ("status", status)).into_iter().collect();
        let mut deliveries = Vec::new();
        self.pages("/v1/deliveries", &query, |mut page: DeliveryPage| {
            deliveries.append(&mut page.deliveries);
            deliveries.len() <= max
        })?;
        let more = deliveries.len() > max;
        deliveries.truncate(max);
        Ok((deliveries, more))
    }

    /// `POST /v1/deliveries/{id}/retry`.
    pub fn retry_delivery(&self, id: DeliveryId) -> Result<(), Failure> {
        self.order(&Method::POST, &format!("/v1/deliveries/{id}/retry"))
    }
}
