//! Carries messages on AWS: e-mail and SMS through the topic, everything else as on `hb-server`.

use async_trait::async_trait;
use hb_api::courier::{Courier, Failure, Opened, Parcel};
use hb_core::access::Channel;
use hb_notify::{Couriers, Rules, message};
use hb_wire::view::Notice;
use serde_json::{Value, json};

use crate::topic::{Message, Protocol, Topic};

/// Most numbers of one channel.
const NUMBERS_MAX: usize = 10;
/// Longest short message: one segment of the GSM alphabet.
const SHORT_CHARS_MAX: usize = 160;

/// The courier of a function.
#[derive(Debug)]
pub struct CloudCourier {
    others: Couriers,
    topic: Option<Topic>,
    /// The other region's: it publishes there what it takes over.
    peer: Option<Topic>,
}

/// A channel of the topic.
struct Addressed {
    protocol: Protocol,
    to: Vec<String>,
}

impl CloudCourier {
    /// With this topic, if there is one, and webhooks under these rules.
    #[must_use]
    pub fn new(topic: Option<Topic>, rules: Rules) -> Self {
        Self { others: Couriers::new(rules), topic, peer: None }
    }

    /// Whoever subscribes here subscribes to the other region's topic, too: a topic is of one region.
    #[must_use]
    pub fn with_peer(self, peer: Option<Topic>) -> Self {
        Self { peer, ..self }
    }

    fn topic(&self) -> Result<&Topic, String> {
        self.topic.as_ref().ok_or_else(|| "this function has no topic (HB_TOPIC_ARN)".to_owned())
    }
}

/// The protocol of a kind that the topic carries.
fn protocol(kind: &str) -> Option<Protocol> {
    match kind {
        "email" => Some(Protocol::Email),
        "sms" => Some(Protocol::Sms),
        _ => None,
    }
}

/// Reads `to`: one address or a list.
fn addressed(kind: &str, settings: &Value) -> Result<Option<Addressed>, String> {
    let Some(protocol) = protocol(kind) else { return Ok(None) };
    let texts: Vec<String> = match settings.get("to") {
        Some(Value::String(one)) => vec![one.trim().to_owned()],
        Some(Value::Array(many)) => {
            let text = |value: &Value| value.as_str().map(|text| text.trim().to_owned());
            many.iter().map(text).collect::<Option<_>>().ok_or("to: a list holds texts only")?
        }
        _ => return Err("to: who is it for? One address, or a list".to_owned()),
    };
    match protocol {
        // The same addresses as on hb-server, though another carries the mail.
        Protocol::Email => {
            hb_notify::open(kind, settings, &Rules::default()).map_err(|error| error.to_string())?;
        }
        Protocol::Sms => check_numbers(&texts)?,
    }
    if let Some(unknown) = settings.as_object().and_then(|map| map.keys().find(|key| *key != "to")) {
        return Err(format!("{unknown:?} is no setting of {kind}: it takes `to`"));
    }
    Ok(Some(Addressed { protocol, to: texts }))
}

/// Numbers as ITU-T E.164 writes them.
fn check_numbers(numbers: &[String]) -> Result<(), String> {
    if numbers.is_empty() || numbers.len() > NUMBERS_MAX {
        return Err(format!("to: from one to {NUMBERS_MAX} numbers"));
    }
    for number in numbers {
        let digits = number.strip_prefix('+').unwrap_or_default();
        let is_good = (8..=15).contains(&digits.len())
            && digits.bytes().all(|byte| byte.is_ascii_digit())
            && !digits.starts_with('0');
        if !is_good {
            let shown = hb_notify::one_line(number, 30);
            return Err(format!("to: {shown:?} is no number like +491701234567: plus, country, number, digits only"));
        }
    }
    Ok(())
}

#[async_trait]
impl Courier for CloudCourier {
    fn open(&self, kind: &str, settings: &Value, random: [u8; 32]) -> Result<Opened, String> {
        if kind == "exec" {
            return Err("exec: functions on AWS run no programs; use a webhook, email or sms".to_owned());
        }
        let Some(addressed) = addressed(kind, settings)? else { return self.others.open(kind, settings, random) };
        self.topic()?;
        let target = addressed.to.join(", ");
        Ok(Opened { settings: json!({ "to": addressed.to }), target, secret: None })
    }

    async fn enlist(&self, channel: &Channel) -> Result<(), String> {
        let Some(addressed) = addressed(&channel.kind, &channel.settings)? else { return Ok(()) };
        let topic = self.topic()?;
        for address in &addressed.to {
            topic.subscribe(addressed.protocol, address).await?;
        }
        let Some(peer) = &self.peer else { return Ok(()) };
        for address in &addressed.to {
            // While the other region is away, a channel can be made all the same; it is shown as pending there.
            if let Err(error) = peer.subscribe(addressed.protocol, address).await {
                tracing::error!(channel.name = %channel.name, "{}: {error}", peer.region());
            }
        }
        Ok(())
    }

    async fn dismiss(&self, channel: &Channel, others: &[Channel]) -> Result<(), String> {
        let Some(gone) = addressed(&channel.kind, &channel.settings)? else { return Ok(()) };
        let topic = self.topic()?;
        let is_used = |address: &String| {
            let others = others.iter().filter(|other| other.id != channel.id && other.kind == channel.kind);
            others
                .filter_map(|other| addressed(&other.kind, &other.settings).ok().flatten())
                .any(|other| other.to.contains(address))
        };
        for address in gone.to.iter().filter(|address| !is_used(address)) {
            topic.unsubscribe(gone.protocol, address).await?;
            if let Some(peer) = &self.peer {
                let ended = peer.unsubscribe(gone.protocol, address).await;
                ended.map_err(|error| format!("{}: {error}", peer.region()))?;
            }
        }
        Ok(())
    }

    async fn pending(&self, channel: &Channel) -> Result<Vec<String>, String> {
        let Some(addressed) = addressed(&channel.kind, &channel.settings)? else { return Ok(Vec::new()) };
        let mut pending = self.topic()?.pending(addressed.protocol, &addressed.to).await?;
        let Some(peer) = &self.peer else { return Ok(pending) };
        match peer.pending(addressed.protocol, &addressed.to).await {
            Ok(there) => pending.extend(there.iter().map(|address| format!("{address} ({})", peer.region()))),
            Err(error) => {
                tracing::warn!(channel.name = %channel.name, "who has agreed in {} is not known: {error}", peer.region());
            }
        }
        Ok(pending)
    }

    async fn send(&self, channel: &Channel, parcel: Parcel<'_>) -> Result<(), Failure> {
        let addressed = addressed(&channel.kind, &channel.settings).map_err(|reason| failure(&reason, true))?;
        let Some(addressed) = addressed else { return self.others.send(channel, parcel).await };
        let topic = self.topic().map_err(|reason| failure(&reason, false))?;
        // SNS takes a message for nobody without a word. Where it does not say who has agreed, somebody may have.
        let pending = topic.pending(addressed.protocol, &addressed.to).await.unwrap_or_else(|error| {
            tracing::warn!(channel.name = %channel.name, "who has agreed to the channel is not known: {error}");
            Vec::new()
        });
        if pending.len() == addressed.to.len() {
            let reason = "nobody has confirmed the subscription yet: follow the link in the mail that AWS sent (it ends after two days)";
            return Err(failure(reason, false));
        }
        let short = hb_notify::one_line(&format!("[hb] {}", message::line(parcel.notice)), SHORT_CHARS_MAX);
        let forms = Message { subject: message::subject(parcel.notice), text: message::text(parcel.notice), short };
        topic.publish(&addressed.to, &forms).await.map_err(|reason| failure(&reason, false))
    }

    fn line(&self, notice: &Notice) -> String {
        message::line(notice)
    }
}

fn failure(reason: &str, permanent: bool) -> Failure {
    Failure { reason: hb_notify::one_line(reason, hb_notify::REASON_CHARS_MAX), permanent, retry_after_ms: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_on_hb_server_and_numbers_as_e_164_has_them() {
        let read = |kind, to: Value| addressed(kind, &json!({ "to": to })).map(|read| read.map(|read| read.to));
        assert_eq!(read("email", json!("ops@example.org")), Ok(Some(vec!["ops@example.org".to_owned()])));
        assert_eq!(read("sms", json!(["+491701234567"])), Ok(Some(vec!["+491701234567".to_owned()])));
        assert_eq!(read("webhook", json!("x")), Ok(None));
        for bad in ["", "ops", "ops@example.org\nBcc: x"] {
            assert!(read("email", json!(bad)).is_err(), "{bad}");
        }
        for bad in ["", "0170123", "+0170123456", "+49 170 123", "+49", "+1234567890123456", "491701234567"] {
            assert!(read("sms", json!(bad)).unwrap_err().contains("to:"), "{bad}");
        }
        assert!(addressed("sms", &json!({})).is_err());
        assert!(addressed("sms", &json!({"to": "+491701234567", "cc": 1})).is_err_and(|error| error.contains("cc")));
    }
}
