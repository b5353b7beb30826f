//! The SNS topic: an address is a subscription to it, which gets only what is for that address.
//!
//! A message is published once for a channel, with the channel's addresses in the attribute `to`; the filter policy of each
//! subscription lets through what names its own. Source: Amazon SNS developer guide, "Subscription filter policies" and
//! "Email subscription setup", as of autumn 2026.

use core::fmt;
use core::time::Duration;
use std::collections::BTreeMap;

use aws_sdk_sns::Client;
use aws_sdk_sns::config::retry::RetryConfig;
use aws_sdk_sns::config::timeout::TimeoutConfig;
use aws_sdk_sns::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_sns::error::DisplayErrorContext;
use aws_sdk_sns::types::MessageAttributeValue;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use hb_store_dynamodb::Connection;
use serde_json::json;

/// How the name of a subscription begins that takes messages; in place of others stands `PendingConfirmation` or `Deleted`.
const NAMED: &str = "arn:";
/// The attribute that a subscription is filtered by.
const TO: &str = "to";
/// One attempt, and all of them.
const ATTEMPT_MAX: Duration = Duration::from_secs(5);
const REQUEST_MAX: Duration = Duration::from_secs(15);

/// How an address is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// Mail.
    Email,
    /// A short message.
    Sms,
}

impl Protocol {
    fn word(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Sms => "sms",
        }
    }
}

/// A message in the forms that it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Of a mail: at most 99 ASCII characters are sent.
    pub subject: String,
    /// Of a mail, and for whoever else is subscribed.
    pub text: String,
    /// Of a short message.
    pub short: String,
}

/// A topic in SNS.
pub struct Topic {
    client: Client,
    arn: String,
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topic").field("arn", &self.arn).finish_non_exhaustive()
    }
}

impl Topic {
    /// The topic of this name; connects when it is first used.
    #[must_use]
    pub fn new(access: Connection, arn: String) -> Self {
        let http =
            aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
        let credentials =
            Credentials::new(access.access_key_id, access.secret_access_key, access.session_token, None, "hb");
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Duration::from_secs(2))
            .operation_attempt_timeout(ATTEMPT_MAX)
            .operation_timeout(REQUEST_MAX)
            .build();
        let mut config = aws_sdk_sns::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(access.region))
            .credentials_provider(credentials)
            .http_client(http)
            .timeout_config(timeouts)
            .retry_config(RetryConfig::standard());
        if let Some(endpoint) = access.endpoint {
            config = config.endpoint_url(endpoint);
        }
        Self { client: Client::from_conf(config.build()), arn }
    }

    /// The region that a topic is in, as its name says.
    #[must_use]
    pub fn region(&self) -> &str {
        region(&self.arn)
    }

    /// Subscribes an address. Doing it again asks a pending one again, and changes nothing for another.
    ///
    /// # Errors
    /// What SNS says.
    pub async fn subscribe(&self, protocol: Protocol, address: &str) -> Result<(), String> {
        let only_its_own = json!({ TO: [address] }).to_string();
        let request = self.client.subscribe().topic_arn(&self.arn).protocol(protocol.word()).endpoint(address);
        let sent = request.attributes("FilterPolicy", only_its_own).return_subscription_arn(true).send().await;
        sent.map(|_| ()).map_err(|error| format!("SNS did not subscribe the address: {}", DisplayErrorContext(&error)))
    }

    /// Every subscription: by protocol and address, its name; none while it waits for its confirmation.
    ///
    /// # Errors
    /// What SNS says.
    pub async fn subscriptions(&self) -> Result<BTreeMap<(String, String), Option<String>>, String> {
        let mut found = BTreeMap::new();
        let mut next = None;
        loop {
            let page = self.client.list_subscriptions_by_topic().topic_arn(&self.arn).set_next_token(next).send().await;
            let page = page.map_err(|error| format!("SNS did not list the topic: {}", DisplayErrorContext(&error)))?;
            for held in page.subscriptions() {
                // While nobody has agreed, or when somebody has left, there is a word in place of the name.
                let arn = held.subscription_arn().filter(|arn| arn.starts_with(NAMED)).map(str::to_owned);
                let key =
                    (held.protocol().unwrap_or_default().to_owned(), held.endpoint().unwrap_or_default().to_owned());
                let known = found.entry(key).or_insert(None);
                *known = known.take().or(arn);
            }
            next = page.next_token().map(str::to_owned);
            if next.is_none() {
                return Ok(found);
            }
        }
    }

    /// Of these addresses, those that wait for their confirmation, or are not subscribed at all (any more).
    ///
    /// # Errors
    /// What SNS says.
    pub async fn pending(&self, protocol: Protocol, addresses: &[String]) -> Result<Vec<String>, String> {
        let subscriptions = self.subscriptions().await?;
        let is_confirmed = |address: &&String| {
            matches!(subscriptions.get(&(protocol.word().to_owned(), (*address).clone())), Some(Some(_)))
        };
        Ok(addresses.iter().filter(|address| !is_confirmed(address)).cloned().collect())
    }

    /// Ends the subscription of an address. One that was never confirmed ends by itself.
    ///
    /// # Errors
    /// What SNS says.
    pub async fn unsubscribe(&self, protocol: Protocol, address: &str) -> Result<(), String> {
        let key = (protocol.word().to_owned(), address.to_owned());
        let Some(Some(arn)) = self.subscriptions().await?.remove(&key) else { return Ok(()) };
        let sent = self.client.unsubscribe().subscription_arn(arn).send().await;
        sent.map(|_| ()).map_err(|error| format!("SNS did not end the subscription: {}", DisplayErrorContext(&error)))
    }

    /// Publishes a message for these addresses.
    ///
    /// # Errors
    /// What SNS says.
    pub async fn publish(&self, addresses: &[String], message: &Message) -> Result<(), String> {
        let forms = json!({ "default": message.text, "email": message.text, "sms": message.short });
        let to = MessageAttributeValue::builder()
            .data_type("String.Array")
            .string_value(json!(addresses).to_string())
            .build()
            .map_err(|error| error.to_string())?;
        let request = self.client.publish().topic_arn(&self.arn).subject(subject(&message.subject));
        let sent = request.message_structure("json").message(forms.to_string()).message_attributes(TO, to).send().await;
        sent.map(|_| ()).map_err(|error| format!("SNS did not take the message: {}", DisplayErrorContext(&error)))
    }
}

/// The region in a name: `arn:aws:sns:REGION:ACCOUNT:NAME`.
#[must_use]
pub fn region(arn: &str) -> &str {
    arn.split(':').nth(3).unwrap_or_default()
}

/// SNS takes subjects of fewer than 100 ASCII characters, without line breaks, that begin with a letter, digit or mark; and
/// refuses the whole message for any other.
fn subject(text: &str) -> String {
    let ascii = text.chars().map(|char| if char.is_ascii_graphic() || char == ' ' { char } else { '?' });
    let cut: String = ascii.take(99).collect();
    let cut = cut.trim();
    if cut.is_empty() { "[hb]".to_owned() } else { cut.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_in_the_region_that_its_name_says() {
        assert_eq!(region("arn:aws:sns:eu-west-1:123456789012:hb"), "eu-west-1");
        assert_eq!(region("hb"), "");
    }

    #[test]
    fn a_subject_is_one_that_sns_takes_whatever_the_hosts_are_called() {
        let long = format!("[hb] DOWN {}", "web-01, ".repeat(50));
        assert_eq!(subject(&long).len(), 99);
        assert_eq!(subject("[hb] DOWN büro\n1"), "[hb] DOWN b?ro?1");
        assert_eq!(subject(" \t"), "?");
        assert_eq!(subject(""), "[hb]");
    }
}
