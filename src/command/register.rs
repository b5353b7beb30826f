//! `hb register`: makes this host's key, enrols it, and starts the agent.

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::time::Duration;

use hb_wire::api_key::{Secret, SecretKind};
use hb_wire::duration::format_seconds;
use hb_wire::key::HostKey;
use hb_wire::name::{HostName, Tags};
use hb_wire::nonce::Nonce;
use hb_wire::problem::{Code, Problem};
use hb_wire::view::{Class, EnrolRequest, Enrolment};
use http::header::AUTHORIZATION;
use http::{HeaderValue, Method};
use serde_json::json;
use url::Url;

use crate::agent::clock;
use crate::agent::post::{signed_headers, why};
use crate::cli::value;
use crate::config::Config;
use crate::context::Ctx;
use crate::error::{Failure, Outcome};
use crate::http::proxy::Ways;
use crate::http::tls::Pin;
use crate::http::{self as https, Http, Options, Reply, Request, check_pin, check_scheme, parse_server};
use crate::identity::{self, Enrolled, check_writable, has_key, key_to_enrol, settle_key};
use crate::place::Place;
use crate::profile::{self, Profiles};
use crate::service::{self, Service, UNIT};
use crate::{account, exit, host, prompt};

/// Time for the server's answer.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// How to enrol.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The right to enrol comes from an enrolment token (--token-file, HB_TOKEN_FILE) or an API key with the
scope register (HB_API_KEY, or the profile of `hb login`). A secret is never an argument.
A private authority is trusted by HB_CA_FILE, a proxy taken by HTTPS_PROXY: the agent goes on with both.
As root, the service is enabled and started.

Examples:
  hb register --server https://hb.example.org --token-file /root/token
  hb register --server https://hb.example.org --pin sha256:3f… --tag site=ams --tag role=db
  echo \"$TOKEN\" | hb register --server https://hb.example.org --token-file -
  hb register --server https://hb.example.org --class intermittent --max-away 14d")]
pub struct Args {
    /// The server's URL
    #[arg(long, value_name = "URL")]
    pub server: Option<String>,
    /// Trust only the certificate with this fingerprint, as `hb-server init` printed it (sha256:…)
    #[arg(long, value_name = "FINGERPRINT")]
    pub pin: Option<Pin>,
    /// The file with the enrolment token or API key; - for stdin
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// The host's label [default: its host name]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// How often to beat [default: 60s, or the server's]
    #[arg(long, value_name = "TIME", value_parser = value::seconds)]
    pub interval: Option<u64>,
    /// How long after a missed beat until somebody is told [default: twice the interval]
    #[arg(long, value_name = "TIME", value_parser = value::seconds)]
    pub grace: Option<u64>,
    /// A label; may be given again
    #[arg(long = "tag", value_name = "K=V", value_parser = value::tag)]
    pub tags: Vec<(String, String)>,
    /// What this host is: silence of a server is an alarm, an intermittent host comes and goes, an ephemeral one
    /// retires by itself
    #[arg(long, value_enum, value_name = "CLASS")]
    pub class: Option<ClassArg>,
    /// For an intermittent host: how long it may stay away before that is an alarm
    #[arg(long, value_name = "TIME", value_parser = value::seconds, requires = "class")]
    pub max_away: Option<u64>,
    /// Allow plain http to another machine: only behind something that encrypts
    #[arg(long)]
    pub insecure_http: bool,
    /// Enrol again although this host is enrolled, by proof of its key
    #[arg(long)]
    pub force: bool,
}

impl Args {
    /// What clap cannot see: an option that only goes with one value of another.
    ///
    /// # Errors
    /// 2, saying what belongs together.
    pub fn check(&self) -> Result<(), Failure> {
        if self.max_away.is_some() && self.class != Some(ClassArg::Intermittent) {
            return Err(Failure::usage("--max-away is for hosts that come and go").hint("add --class intermittent"));
        }
        Ok(())
    }
}

/// [`Class`] as an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ClassArg {
    /// Always on.
    Server,
    /// Comes and goes.
    Intermittent,
    /// Retires by itself.
    Ephemeral,
}

impl From<ClassArg> for Class {
    fn from(class: ClassArg) -> Self {
        match class {
            ClassArg::Server => Self::Server,
            ClassArg::Intermittent => Self::Intermittent,
            ClassArg::Ephemeral => Self::Ephemeral,
        }
    }
}

/// Everything that an enrolment needs.
struct Plan {
    place: Place,
    server: Url,
    options: Options,
    secret: Option<Secret>,
    request: EnrolRequest,
}

/// Enrols this host.
pub fn run(ctx: &Ctx, args: &Args) -> Outcome {
    let (place, config) = host::setting(ctx)?;
    let before = match Enrolled::load(&place) {
        // A damaged record is what --force is for.
        Err(_) if args.force => None,
        other => other?,
    };
    if let (Some(enrolled), false) = (&before, args.force) {
        // Whoever lost the key is not enrolled any more, and an unattended install has to hear of it.
        enrolled.check_key(&place)?;
        return already(ctx, args, enrolled);
    }
    let mut plan = plan(ctx, args, place, &config, before.as_ref())?;
    // What is in the system's folder may be read by all; a folder of one's own is nobody else's business.
    let mode = if plan.place.system { 0o755 } else { 0o700 };
    std::fs::DirBuilder::new().recursive(true).mode(mode).create(&plan.place.dir).map_err(|error| {
        let hint = if error.kind() == std::io::ErrorKind::ReadOnlyFilesystem {
            "its file system is mounted read-only: make it writable, or set HB_STATE_DIR to a folder elsewhere"
        } else {
            "run it as root, or set HB_STATE_DIR to a folder of your own"
        };
        Failure::failed(format!("could not make {}: {error}", plan.place.dir.display())).hint(hint)
    })?;
    let mut seed = zeroize::Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut()).map_err(|error| Failure::no_randomness(&error))?;
    check_writable(&plan.place)?;
    let key = key_to_enrol(&plan.place, *seed)?;
    plan.request.public_key = key.public().to_string();
    let enrolment = ask(ctx, &plan, &key)?;
    let enrolled = record(&plan, &enrolment, &key)?;
    settle_key(&plan.place)?;
    enrolled.save(&plan.place)?;
    let service = service::start(&plan.place);
    report(ctx, &plan, &enrolled, &key, &service);
    match service {
        Service::Failed(why) => Err(Failure::failed(format!("this host is enrolled, but {UNIT} did not start: {why}"))
            .hint(format!("systemctl status {UNIT}"))),
        Service::Started
        | Service::Stopped
        | Service::NotRunning
        | Service::NotInstalled
        | Service::NoSystemd
        | Service::ByHand => Ok(exit::OK),
    }
}

fn already(ctx: &Ctx, args: &Args, enrolled: &Enrolled) -> Outcome {
    if let Some(text) = &args.server {
        let wanted = parse_server(text)?;
        if wanted != enrolled.server {
            let what = format!("this host is enrolled as {} at {}, not at {wanted}", enrolled.name, enrolled.server);
            return Err(Failure::failed(what).hint("add --force to enrol it there instead"));
        }
    }
    if ctx.json {
        ctx.printer.json(&json!({
            "changed": false,
            "id": enrolled.id,
            "name": enrolled.name,
            "server": enrolled.server.as_str(),
        }));
    } else {
        ctx.printer.note(&format!(
            "already enrolled as {} ({}) at {}; nothing changed (--force enrols again)",
            enrolled.name, enrolled.id, enrolled.server
        ));
    }
    Ok(exit::OK)
}

fn plan(ctx: &Ctx, args: &Args, place: Place, config: &Config, before: Option<&Enrolled>) -> Result<Plan, Failure> {
    let wishes = &config.register;
    let server = match args.server.as_ref().or(wishes.server.as_ref()) {
        Some(text) => parse_server(text)?,
        None => before.map(|enrolled| enrolled.server.clone()).ok_or_else(|| {
            Failure::usage("no server was given").hint("hb register --server https://hb.example.com (or HB_SERVER)")
        })?,
    };
    let same = before.filter(|enrolled| enrolled.server == server);
    let pin = match (&args.pin, &ctx.env.pin) {
        (Some(pin), _) => Some(pin.clone()),
        (None, Some(text)) => Some(text.parse().map_err(|error| {
            Failure::config(format!("HB_PIN: {error}")).hint("copy it again, whole, as `hb-server serve` prints it")
        })?),
        (None, None) => same.and_then(|enrolled| enrolled.pin.clone()),
    };
    let insecure_http = args.insecure_http || config.insecure_http || same.is_some_and(|before| before.insecure_http);
    check_pin(&server, args.pin.is_some() || ctx.env.pin.is_some())?;
    check_scheme(&server, insecure_http).map_err(|what| {
        Failure::config(what).hint("use https, or add --insecure-http behind something that encrypts")
    })?;
    let ca_file = config.ca_file.clone().or_else(|| same.and_then(|enrolled| enrolled.ca_file.clone()));
    // The agent runs elsewhere: a relative path would mean another file there.
    let ca_file = ca_file.map(|path| std::path::absolute(&path).unwrap_or(path));
    if let (Some(path), Some(account)) = (&ca_file, account::to_become(&place))
        && path.exists()
        && !account.may_read(path)
    {
        let what = format!("the agent, which runs as {}, cannot read {}", account::ACCOUNT, path.display());
        return Err(Failure::config(what)
            .hint("put the authorities (ca_file, HB_CA_FILE) into /etc/hb, readable by all: they are no secret"));
    }
    let options = Options {
        ca_file,
        pin,
        insecure_http,
        proxy: config.proxy.clone(),
        no_proxy: config.no_proxy.clone(),
        remembered: same.and_then(Enrolled::way),
    };
    let secret = secret(ctx, args, &server)?;
    if secret.is_none() && !(args.force && has_key(&place)) {
        return Err(Failure::config("there is no token or API key to enrol with").hint(
            "give an enrolment token with --token-file (hb tokens create), or an API key of scope register in HB_API_KEY",
        ));
    }
    let name = match args.name.as_ref().or(wishes.name.as_ref()) {
        Some(name) => name.clone(),
        None => match before {
            Some(enrolled) => enrolled.name.clone(),
            None => own_name()?,
        },
    };
    let name = HostName::parse(&name).map_err(|error| Failure::usage(error.to_string()).hint("--name web1"))?;
    let mut tags: BTreeMap<String, String> = wishes.tags.clone();
    tags.extend(value::tags(&args.tags)?);
    let tags = Tags::parse(tags).map_err(|error| Failure::usage(error.to_string()).hint("--tag site=ams"))?;
    let request = EnrolRequest {
        name: name.to_string(),
        public_key: String::new(),
        interval_s: args.interval.or(wishes.interval_s),
        grace_s: args.grace.or(wishes.grace_s),
        tags: tags.into_map(),
        class: args.class.map(Class::from).or(wishes.class),
        max_away_s: args.max_away,
    };
    Ok(Plan { place, server, options, secret, request })
}

fn own_name() -> Result<String, Failure> {
    let name = hostname::get().map_err(|error| {
        Failure::failed(format!("this machine's host name could not be read: {error}")).hint("--name web1")
    })?;
    Ok(name.to_string_lossy().into_owned())
}

/// The right to enrol: a token or key in a file, else the API key of the environment, else the one of `hb login`.
fn secret(ctx: &Ctx, args: &Args, server: &Url) -> Result<Option<Secret>, Failure> {
    if let Some(path) = args.token_file.as_ref().or(ctx.env.token_file.as_ref()) {
        let text = prompt::secret_file(path, "the enrolment token")?;
        return Secret::parse(text.trim()).map(Some).map_err(|error| {
            Failure::config(format!("what {} holds is no enrolment token: {error}", path.display()))
                .hint("copy it again, whole: it begins with hbe_ (or hbk_ for an API key)")
        });
    }
    if let Some(text) = &ctx.env.api_key {
        return profile::api_key(text, "HB_API_KEY").map(Some);
    }
    // A saved key never goes to another server than its own.
    let Ok(profiles) = profile::path().and_then(|path| Profiles::load(&path)) else { return Ok(None) };
    let saved = profiles.named(ctx.env.profile.as_deref()).ok().filter(|target| target.server == *server);
    Ok(saved.map(|target| target.key))
}

fn ask(ctx: &Ctx, plan: &Plan, key: &HostKey) -> Result<Enrolment, Failure> {
    let url = https::join(&plan.server, "/v1/hosts");
    let body = serde_json::to_vec(&plan.request).expect("an enrolment has text keys and whole numbers");
    let mut headers = signed_headers(key, &url, key.public().to_string(), Nonce::NONE, clock::wall(), &body);
    if let Some(secret) = &plan.secret {
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", secret.expose()))
            .map_err(|_| Failure::config("the token is not plain text").hint("copy it again, whole"))?;
        bearer.set_sensitive(true);
        headers.insert(AUTHORIZATION, bearer);
    }
    let request = Request {
        method: Method::POST,
        url: &url,
        headers,
        body: Some(body),
        timeout: TIMEOUT,
        reply_bytes_max: ANSWER_BYTES_MAX,
    };
    ctx.printer.detail(&format!("POST {url}"));
    let http = Http::new(plan.options.clone())?;
    // No time floor here: an enrolment teaches whom to trust, and that must not rest on an expired certificate.
    let reply =
        host::runtime()?.block_on(http.send(&request, None)).map_err(crate::http::trouble::Trouble::into_failure)?;
    match reply.status {
        200 | 201 => serde_json::from_slice(&reply.body).map_err(|error| {
            Failure::unreachable(format!("{url} did not answer as an hb server does: {error}"))
                .hint("check the server's URL")
        }),
        status => Err(refusal(status, &reply, plan)),
    }
}

/// What the server calls a value, and the option that it came from.
const OPTIONS: &[(&str, &str)] = &[
    ("name: ", "--name: "),
    ("interval_s: ", "--interval: "),
    ("grace_s: ", "--grace: "),
    ("max_away_s: ", "--max-away: "),
    ("tags: ", "--tag: "),
];

fn refusal(status: u16, reply: &Reply, plan: &Plan) -> Failure {
    let problem: Option<Problem> = serde_json::from_slice(&reply.body).ok();
    let what = format!("{} did not enrol {}: {}", plan.server, plan.request.name, why(status, problem.as_ref()));
    let mut hint = problem.as_ref().and_then(|problem| problem.hint.clone());
    let kind = plan.secret.as_ref().map(Secret::kind);
    let (failure, own_hint) = match (status, problem.as_ref().map(|problem| problem.code)) {
        (401 | 403, code) => {
            // The server must not say which part was right, and speaks of API keys to all: here it is known what was given.
            if code != Some(Code::BadSignature) {
                hint = None;
            }
            let what = if kind == Some(SecretKind::Token) && code == Some(Code::Unauthorized) {
                format!(
                    "{} did not enrol {}: it does not take this token: 401 (unauthorized)",
                    plan.server, plan.request.name
                )
            } else {
                what
            };
            let own_hint = match kind {
                Some(SecretKind::ApiKey) => "the API key must be valid and have the scope register (`hb keys list`)",
                Some(SecretKind::Token) => {
                    "the token may be expired, used up or revoked: make another with `hb tokens create`"
                }
                None => "the server does not know this host's key any more: enrol with a token (`hb tokens create`)",
            };
            (Failure::refused(what), own_hint)
        }
        // Until its first beat, the server knows a key that `hb identity rotate` made only as the next one.
        (409, Some(Code::NameTaken)) if kind.is_none() => {
            hint = None;
            (
                Failure::failed(what),
                "after `hb identity rotate`, `hb beat` first; else choose another with --name, or retire the old host",
            )
        }
        (409, Some(Code::NameTaken)) => (Failure::failed(what), "choose another with --name, or retire the old host"),
        (409, _) => (Failure::failed(what), "see hb hosts show"),
        (429 | 503, _) => (Failure::unreachable(what), "run it again in a while; the same key is used"),
        (400 | 413 | 422, _) => {
            (Failure::usage(what).naming(OPTIONS), "`hb register --help` shows what goes with each option")
        }
        (300..=399, _) => (Failure::unreachable(what), "use the address that it redirects to as the server"),
        (404 | 405, None) => (Failure::unreachable(what), "check the server's URL: no hb server answers there"),
        _ => (Failure::failed(what), "see the server's log"),
    };
    failure.hint(hint.unwrap_or_else(|| own_hint.to_owned()))
}

/// What to store; an answer that could not be lived by is not stored.
fn record(plan: &Plan, enrolment: &Enrolment, key: &HostKey) -> Result<Enrolled, Failure> {
    let odd = |what: String| Failure::unreachable(what).hint("compare `hb --version` with the server's");
    let mut beat_urls = Vec::new();
    for text in &enrolment.beat_urls {
        let shown: String = text.chars().filter(|char| !char.is_control()).take(200).collect();
        let url = Url::parse(text).map_err(|error| odd(format!("the server wants beats at {shown:?}: {error}")))?;
        check_scheme(&url, plan.options.insecure_http).map_err(|what| {
            Failure::config(format!("the server wants beats at an address that is not allowed: {what}"))
                .hint("set HB_SERVER_PUBLIC_URL on the server to its https address")
        })?;
        beat_urls.push(url);
    }
    if beat_urls.is_empty() || beat_urls.len() > identity::BEAT_URLS_MAX {
        return Err(odd(format!("the server gave {} addresses to beat to", beat_urls.len())));
    }
    let first_nonce =
        Nonce::parse(&enrolment.next).map_err(|error| odd(format!("the server's first nonce: {error}")))?;
    let name = HostName::parse(&enrolment.name).map_err(|error| odd(format!("the server's answer: {error}")))?;
    // The agent has not the environment of whoever enrols: what was gone through here is the only way that it hears of.
    let ways = Ways::of_process(&plan.options)?;
    let way = beat_urls.iter().chain([&plan.server]).find_map(|url| ways.to(url)).cloned();
    let (proxy, no_proxy) = way.map_or((None, None), |way| (Some(way.proxy), way.no_proxy));
    Ok(Enrolled {
        version: Enrolled::VERSION,
        id: enrolment.id,
        name: name.to_string(),
        server: plan.server.clone(),
        beat_urls,
        interval_s: enrolment.interval_s.max(1),
        grace_s: enrolment.grace_s,
        public_key: key.public().to_string(),
        next_key: None,
        first_nonce,
        enrolled_at_unix_s: u64::try_from(enrolment.now.as_second()).unwrap_or(0),
        pin: plan.options.pin.clone(),
        ca_file: plan.options.ca_file.clone(),
        insecure_http: plan.options.insecure_http,
        proxy,
        no_proxy,
    })
}

/// When its silence is an alarm.
fn alarm(wish: &EnrolRequest, enrolled: &Enrolled) -> String {
    match (wish.class, wish.max_away_s) {
        (Some(Class::Intermittent), Some(away)) => format!("an alarm after {} of absence", format_seconds(away)),
        (Some(Class::Intermittent), None) => "no alarm for its absence".to_owned(),
        (Some(Class::Server | Class::Ephemeral) | None, _) => {
            format!("an alarm after {} more", format_seconds(enrolled.grace_s))
        }
    }
}

fn report(ctx: &Ctx, plan: &Plan, enrolled: &Enrolled, key: &HostKey, service: &Service) {
    let place = &plan.place;
    if ctx.json {
        let urls: Vec<&str> = enrolled.beat_urls.iter().map(Url::as_str).collect();
        return ctx.printer.json(&json!({
            "changed": true,
            "id": enrolled.id,
            "name": enrolled.name,
            "server": enrolled.server.as_str(),
            "beat_urls": urls,
            "interval_s": enrolled.interval_s,
            "grace_s": enrolled.grace_s,
            "key": key.public().fingerprint(),
            "service": service.word(),
        }));
    }
    ctx.printer.line(&format!("enrolled as {} ({}) at {}", enrolled.name, enrolled.id, enrolled.server));
    ctx.printer.note(&format!(
        "a beat every {}, {}; key {} in {}",
        format_seconds(enrolled.interval_s),
        alarm(&plan.request, enrolled),
        key.public().fingerprint(),
        place.key().display()
    ));
    let next = match service {
        Service::Started => format!("{UNIT} is enabled and started"),
        Service::NotInstalled => format!("{UNIT} is not installed: run `hb agent`, or `hb beat` from cron"),
        Service::NoSystemd => "systemd does not run here: run `hb agent`, or `hb beat` from cron".to_owned(),
        // The latter two never come of a start.
        Service::ByHand | Service::Stopped | Service::NotRunning => "run `hb agent`, or `hb beat` from cron".to_owned(),
        // Told as the failure of the command.
        Service::Failed(_) => return,
    };
    ctx.printer.note(&next);
    if place.system && account::to_become(place).is_none() && matches!(service, Service::NoSystemd | Service::ByHand) {
        ctx.printer.detail("there is no account _hb: the agent runs as root");
    }
}
