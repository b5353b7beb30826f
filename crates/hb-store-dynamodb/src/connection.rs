//! The way to DynamoDB: where, as whom, and how long it may take.

use core::fmt;
use core::time::Duration;

use aws_sdk_dynamodb::config::Credentials;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::config::{BehaviorVersion, Region};
use aws_sdk_dynamodb::{Client, Config};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};

/// How often a request is made in all: throttling and lost connections mostly pass within milliseconds.
const ATTEMPTS_MAX: u32 = 4;
/// A connection within a region takes a few milliseconds; who waits longer had better try another address.
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// Beats are answered in single milliseconds; a page of a large query may take a few hundred.
const ATTEMPT_MAX: Duration = Duration::from_secs(3);
/// With all its retries. Shorter than an agent waits for the answer to its beat (10 s).
const REQUEST_MAX: Duration = Duration::from_secs(8);

/// Where the table is, and as whom it is used.
#[derive(Clone)]
pub struct Connection {
    /// For example `eu-central-1`.
    pub region: String,
    /// Another address than the region's own: an emulator's.
    pub endpoint: Option<String>,
    /// The public part of the access key.
    pub access_key_id: String,
    /// Its secret part.
    pub secret_access_key: String,
    /// Temporary credentials, as functions have them, come with a token.
    pub session_token: Option<String>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("region", &self.region)
            .field("endpoint", &self.endpoint)
            .field("access_key_id", &self.access_key_id)
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// A client with this crate's time-outs and retries. Connects when it is first used; then it keeps the connection.
    ///
    /// TLS is rustls with ring, and trusts what the system trusts.
    #[must_use]
    pub fn client(self) -> Client {
        let http =
            aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
        let credentials = Credentials::new(self.access_key_id, self.secret_access_key, self.session_token, None, "hb");
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_MAX)
            .operation_attempt_timeout(ATTEMPT_MAX)
            .operation_timeout(REQUEST_MAX)
            .build();
        let retries = RetryConfig::standard()
            .with_max_attempts(ATTEMPTS_MAX)
            .with_initial_backoff(Duration::from_millis(25))
            .with_max_backoff(Duration::from_secs(1));
        let mut config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(self.region))
            .credentials_provider(credentials)
            .http_client(http)
            .timeout_config(timeouts)
            .retry_config(retries);
        if let Some(endpoint) = self.endpoint {
            config = config.endpoint_url(endpoint);
        }
        Client::from_conf(config.build())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_shown_without_its_secrets() {
        let connection = Connection {
            region: "eu-central-1".into(),
            endpoint: None,
            access_key_id: "AKIDEXAMPLE".into(),
            secret_access_key: "hunter2".into(),
            session_token: Some("hunter3".into()),
        };
        let shown = format!("{connection:?}");
        assert!(shown.contains("AKIDEXAMPLE") && !shown.contains("hunter"), "{shown}");
    }
}
