//! Mail: plain text, marked as automatic, and threaded by incident.

use core::fmt;
use core::time::Duration;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use lettre::message::header::{ContentType, Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message};
use lettre::{Address, address::Envelope};

use crate::Kind;
use crate::channel::{Channel, Letter, SendError};
use crate::message;
use crate::rules::Rules;
use crate::settings::{Fields, SettingsError};
use crate::smtp::SmtpSettings;
use crate::text::visible;
use crate::trust::Trust;

/// Most recipients of one channel.
const RECIPIENTS_MAX: usize = 10;
/// Longest mail address, in bytes (RFC 5321, section 4.5.3.1.3: 256 with its brackets).
const ADDRESS_BYTES_MAX: usize = 254;
/// The timeout of a channel that has no mail server, and so fails at once.
const NO_SERVER_TIMEOUT: Duration = Duration::from_secs(1);

pub(crate) const KIND: Kind = Kind { name: "email", fields: &["to"], complete: |_, _| None, open };

struct Email {
    to: Vec<Address>,
    smtp: Option<Arc<SmtpSettings>>,
    trust: Arc<Trust>,
}

impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Email").field("to", &self.target()).finish_non_exhaustive()
    }
}

fn open(fields: &Fields<'_>, rules: &Rules) -> Result<Arc<dyn Channel>, SettingsError> {
    let texts = fields.texts("to")?;
    if texts.len() > RECIPIENTS_MAX {
        return Err(fields.wrong("to", format!("has more than {RECIPIENTS_MAX} addresses: use a mailing list")));
    }
    let mut to: Vec<Address> = Vec::with_capacity(texts.len());
    for text in texts {
        let address = read_address(text.trim_matches(' ')).map_err(|problem| fields.wrong("to", problem))?;
        if !to.contains(&address) {
            to.push(address);
        }
    }
    Ok(Arc::new(Email { to, smtp: rules.smtp.clone(), trust: Arc::clone(&rules.trust) }))
}

/// A bare ASCII address. Quoted local parts and address literals are valid mail, but nobody's pager.
fn read_address(text: &str) -> Result<Address, String> {
    let shown = crate::text::one_line(text, 60);
    let is_clean = text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\<>(),;:[]".contains(&byte));
    let address = text.parse().ok().filter(|_| is_clean && text.len() <= ADDRESS_BYTES_MAX);
    address.ok_or_else(|| format!("{shown:?} is not a mail address like ops@example.org"))
}

/// Tells other robots not to answer (RFC 3834, section 5).
#[derive(Debug, Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn core::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

impl Email {
    /// The mail of one letter: the same bytes for the same letter, but for the date.
    fn mail(&self, smtp: &SmtpSettings, letter: &Letter<'_>) -> Result<Vec<u8>, SendError> {
        let failed = |error: lettre::error::Error| SendError::permanent(format!("the mail cannot be written: {error}"));
        let domain = smtp.from.email.domain();
        let mut mail = Message::builder()
            .from(smtp.from.clone())
            // A name must not be taken for an encoded word (RFC 2047), in which a line break could hide.
            .subject(message::subject(letter.notice).replace("=?", "= ?"))
            // A time before 1970 cannot be written in a mail; it would be a clock gone mad.
            .date(SystemTime::try_from(letter.at).map_or(UNIX_EPOCH, |at| at.max(UNIX_EPOCH)))
            // From the delivery's id: a mailbox that gets a repetition can tell.
            .message_id(Some(format!("<{}@{domain}>", letter.key)))
            .header(AutoSubmitted)
            .header(ContentType::TEXT_PLAIN);
        if let Some(incident) = letter.notice.incident {
            // A mail that was never sent, as the head of the thread: the end of an outage stands below its beginning.
            let thread = format!("<incident.{incident}@{domain}>");
            mail = mail.in_reply_to(thread.clone()).references(thread);
        }
        for address in &self.to {
            mail = mail.to(Mailbox::new(None, address.clone()));
        }
        let envelope = Envelope::new(Some(smtp.from.email.clone()), self.to.clone()).map_err(failed)?;
        let text: String =
            message::text(letter.notice).chars().map(|c| if c == '\n' { c } else { visible(c) }).collect();
        let text = format!("{text}Delivery:       {}, attempt {}\n", letter.key, letter.attempt);
        let mail = mail.envelope(envelope).body(text).map_err(failed)?.formatted();
        if mail.is_ascii() { Ok(mail) } else { Err(SendError::permanent("the mail is not plain ASCII once encoded")) }
    }
}

#[async_trait]
impl Channel for Email {
    async fn send(&self, letter: &Letter<'_>) -> Result<(), SendError> {
        let Some(smtp) = &self.smtp else { return Err(SendError::temporary(no_server().to_string())) };
        let mail = self.mail(smtp, letter)?;
        smtp.deliver(&self.trust, letter.key, &self.to, &mail).await
    }

    fn admit(&self) -> Result<(), SettingsError> {
        self.smtp.as_ref().map(drop).ok_or_else(no_server)
    }

    fn target(&self) -> String {
        self.to.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }

    fn timeout(&self) -> Duration {
        self.smtp.as_ref().map_or(NO_SERVER_TIMEOUT, |smtp| smtp.timeout + NO_SERVER_TIMEOUT)
    }
}

fn no_server() -> SettingsError {
    SettingsError::refused(KIND.name, "this server sends no mail: set [smtp] in server.toml")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::open as open_stored;
    use crate::parse;

    #[test]
    fn addresses_that_could_forge_a_header_or_are_none_are_refused() {
        let rules = Rules::default();
        for bad in [
            "",
            "ops",
            "@example.org",
            "ops@",
            "ops@exa mple.org",
            "a@b@example.org",
            "ops@example.org\r\nBcc: x@example.org",
            "ops@example.org\n",
            "\"ops\r\n\"@example.org",
            "Ops <ops@example.org>",
            "ops@example.org, x@example.org",
            "ops@example.org;x@example.org",
            "\"a b\"@example.org",
            "ops@[127.0.0.1]",
            "öps@example.org",
            "ops@exämple.org",
            "ops\0@example.org",
            "ops@example.org\u{200b}",
        ] {
            let error = open_stored("email", &json!({"to": bad}), &rules).unwrap_err();
            assert!(matches!(error, SettingsError::Field { .. }), "{bad:?}: {error}");
            assert!(!error.to_string().contains(['\r', '\n', '\0']), "{error}");
        }
        let long = format!("{}@example.org", "a".repeat(300));
        for bad in [
            json!({"to": long}),
            json!({"to": []}),
            json!({"to": 7}),
            json!({"to": [7]}),
            json!({}),
            json!({"to": null}),
        ] {
            assert!(open_stored("email", &bad, &rules).is_err(), "{bad}");
        }
    }

    #[test]
    fn one_address_or_ten_are_taken_and_eleven_are_not() {
        let rules = Rules::default();
        let many = |count: usize| json!({"to": (0..count).map(|n| format!("a{n}@example.org")).collect::<Vec<_>>()});
        assert_eq!(
            open_stored("email", &json!({"to": " ops@example.org "}), &rules).unwrap().target(),
            "ops@example.org"
        );
        assert_eq!(open_stored("email", &many(2), &rules).unwrap().target(), "a0@example.org, a1@example.org");
        assert!(open_stored("email", &many(10), &rules).is_ok());
        assert!(open_stored("email", &many(11), &rules).is_err());
    }

    #[test]
    fn a_server_without_smtp_says_so() {
        let error = parse("email", &json!({"to": "ops@example.org"}), &Rules::default(), [0; 32]).unwrap_err();
        assert_eq!(error.to_string(), "email: this server sends no mail: set [smtp] in server.toml");
    }
}
