//! The bare limit of an agent: read memory, load and uptime, sign, post over TLS 1.3 by the same libraries, and nothing else. No
//! journal, no time-out, no second address, nothing decided: the spike of BASELINES.md, of which the bars were made.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hb_wire::beat::BeatAnswer;
use hb_wire::key::HostKey;
use hb_wire::nonce::Nonce;
use hb_wire::signature::{self, Message, Params};
use hb_wire::view::{EnrolRequest, Enrolment};
use sysinfo::{MemoryRefreshKind, System};

use crate::measure::{cpu, say, share};

/// Beats before the first look at the clock.
const WARM_UP: u64 = 10;
/// The key of the bare host.
const SEED: [u8; 32] = [0xba; 32];

/// Beats `beats` times, one each `every`, and prints the CPU time of one in milliseconds. Trusts the authorities in
/// `SSL_CERT_FILE`, enrols with the key in `HB_API_KEY`.
pub(crate) async fn run(url: &str, beats: u64, every: Duration) -> Result<()> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let tls = rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = reqwest::Client::builder().tls_backend_preconfigured(tls).build()?;
    let authority = url.strip_prefix("https://").context("an https URL")?.to_owned();
    let mut agent = Agent { client, url: url.to_owned(), authority, key: HostKey::from_seed(SEED), nonce: Nonce::NONE };

    let enrolment = agent.enrol(&std::env::var("HB_API_KEY").context("HB_API_KEY")?).await?;
    agent.nonce = enrolment.next.parse().ok().context("a nonce")?;
    let id = enrolment.id.to_string();
    let mut system = System::new()?;
    for seq in 1..=WARM_UP {
        agent.beat(&id, seq, &mut system).await?;
    }
    let before = cpu(std::process::id())?;
    let mut ticks = tokio::time::interval(every);
    for seq in 1..=beats {
        ticks.tick().await;
        agent.beat(&id, WARM_UP + seq, &mut system).await?;
    }
    say(&share(cpu(std::process::id())?.saturating_sub(before), beats).to_string());
    Ok(())
}

struct Agent {
    client: reqwest::Client,
    url: String,
    authority: String,
    key: HostKey,
    nonce: Nonce,
}

impl Agent {
    async fn enrol(&self, api_key: &str) -> Result<Enrolment> {
        let request = EnrolRequest {
            name: "bare".to_owned(),
            public_key: self.key.public().to_string(),
            interval_s: Some(60),
            grace_s: Some(600),
            tags: std::collections::BTreeMap::new(),
            class: None,
            max_away_s: None,
        };
        let body = serde_json::to_vec(&request)?;
        let request = self.signed("/v1/hosts", self.key.public().to_string(), body).bearer_auth(api_key);
        Ok(serde_json::from_slice(&answer(request).await?)?)
    }

    async fn beat(&mut self, id: &str, seq: u64, system: &mut System) -> Result<()> {
        system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        let body = format!(
            r#"{{"boot":"2d1f7c3e-8b0a-4c55-9e21-5f0c6a7b8c9d","run":"2d1f7c3e-8b0a-4c55-9e21-5f0c6a7b8c9e","seq":{seq},"up":{},"v":"0.1.0","vitals":{{"load1":{},"cpus":2,"mem_used_bytes":{},"mem_total_bytes":{}}}}}"#,
            System::uptime()?,
            System::load_average()?.one,
            system.total_memory().saturating_sub(system.available_memory()),
            system.total_memory(),
        );
        let request = self.signed("/v1/beat", id.to_owned(), body.into_bytes());
        let answer: BeatAnswer = serde_json::from_slice(&answer(request).await?)?;
        self.nonce = answer.next.parse().ok().context("a nonce")?;
        Ok(())
    }

    fn signed(&self, path: &str, keyid: String, body: Vec<u8>) -> reqwest::RequestBuilder {
        let message = Message { method: "POST", authority: &self.authority, path, body: &body };
        let signed = signature::sign(&self.key, &message, &Params { created: 1_800_000_000, nonce: self.nonce, keyid });
        self.client
            .post(format!("{}{path}", self.url))
            .header("content-type", "application/json")
            .header("content-digest", signed.content_digest)
            .header("signature-input", signed.signature_input)
            .header("signature", signed.signature)
            .body(body)
    }
}

async fn answer(request: reqwest::RequestBuilder) -> Result<Vec<u8>> {
    let response = request.send().await?;
    let status = response.status();
    let body = response.bytes().await?;
    ensure!(status.is_success(), "the bare agent was answered {status}: {}", String::from_utf8_lossy(&body));
    Ok(body.to_vec())
}
