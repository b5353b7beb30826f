//! A host that reaches its server only through a proxy.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex};

use rustls::ServerConfig;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::server::Server;
use super::system::SYSTEM;
use super::tls::{DAY, Site, now, site, trusting};
use super::world::{World, until};

/// A name that nothing but the proxy knows.
const URL: &str = "https://hb.invalid";
/// `user:s3cret`, as it stands in a header.
const LOGIN: &str = "dXNlcjpzM2NyZXQ=";

/// A proxy that connects everybody to one server, wherever they want to go.
struct Proxy {
    address: SocketAddr,
    /// The head of each request.
    heads: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    fn to(server: SocketAddr) -> Self {
        Self::start(server, None)
    }

    /// One that speaks TLS, or not.
    fn start(server: SocketAddr, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let proxy = Self { address: listener.local_addr().unwrap(), heads: Arc::default() };
        let heads = Arc::clone(&proxy.heads);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        std::thread::spawn(move || {
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                loop {
                    let (client, _) = listener.accept().await.unwrap();
                    let (tls, heads) = (tls.clone(), Arc::clone(&heads));
                    // A client that goes away is none of the proxy's business.
                    tokio::spawn(async move {
                        match tls {
                            None => tunnel(client, server, &heads).await,
                            Some(tls) => tunnel(TlsAcceptor::from(tls).accept(client).await?, server, &heads).await,
                        }
                    });
                }
            });
        });
        proxy
    }

    /// Heads of the requests since the last call.
    fn heads(&self) -> Vec<String> {
        core::mem::take(&mut *self.heads.lock().unwrap())
    }
}

async fn tunnel(
    client: impl AsyncRead + AsyncWrite + Unpin,
    server: SocketAddr,
    heads: &Mutex<Vec<String>>,
) -> io::Result<()> {
    let mut client = BufReader::new(client);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") && client.read_line(&mut head).await? > 0 {}
    heads.lock().unwrap().push(head);
    let mut server = TcpStream::connect(server).await?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await.map(drop)
}

/// A host, the server that it cannot reach by itself, and its proxy.
fn behind_a_proxy() -> (World, Server, Proxy) {
    behind_a_proxy_of(&site("hb.invalid", now() - DAY, now() + DAY))
}

fn behind_a_proxy_of(site: &Site) -> (World, Server, Proxy) {
    let server = Server::tls(Arc::clone(&site.config));
    server.answer_to(URL);
    server.books.lock().unwrap().now = jiff::Timestamp::now().to_string();
    let proxy = Proxy::to(server.address);
    (trusting(site), server, proxy)
}

fn register(world: &World, more: &[&str]) {
    let token = world.token_file();
    let mut args = vec!["-v", "register", "--server", URL, "--token-file", &token, "--name", "web1"];
    args.extend(more);
    let run = world.run(&args);
    run.says(0, &[]);
    assert!(!format!("{run:?}").contains("s3cret"), "{run:?}");
}

fn mode(world: &World) -> u32 {
    fs::metadata(world.state().join("enrolment.toml")).unwrap().permissions().mode() & 0o777
}

#[test]
fn the_proxy_of_the_enrolment_is_that_of_the_beats_which_have_no_such_environment() {
    for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "HB_PROXY"] {
        let (world, server, proxy) = behind_a_proxy();
        let world = world.env(name, &format!("http://{}", proxy.address));
        register(&world, &[]);
        assert!(proxy.heads()[0].starts_with("CONNECT hb.invalid:443 "), "{name}");
        assert_eq!(mode(&world), 0o644);

        let world = world.env(name, "");
        world.run(&["beat"]).says(0, &[]);
        assert_eq!((server.stored().len(), proxy.heads().len()), (1, 1), "{name}");

        let agent = world.agent();
        until("the agent beats", || server.stored().len() > 1);
        agent.stop().says(0, &[]);
        assert!(!proxy.heads().is_empty(), "{name}");
    }
}

#[test]
fn a_proxy_that_speaks_tls_is_not_judged_by_the_pin_of_the_server() {
    let site: Site = site("hb.invalid", now() - DAY, now() + DAY);
    let (world, server, _) = behind_a_proxy_of(&site);
    // Only for the proxy: a pinned server needs no authority.
    let its_own = super::tls::site("localhost", now() - DAY, now() + DAY);
    let proxy = Proxy::start(server.address, Some(Arc::clone(&its_own.config)));
    let world = world.env("HTTPS_PROXY", &format!("https://localhost:{}", proxy.address.port()));
    let token = world.token_file();
    let args = ["register", "--server", URL, "--token-file", &token, "--name", "web1"];
    let said =
        format!("the proxy https://localhost:{} gave no connection to {URL}: it is not trusted", proxy.address.port());
    world.run(&args).says(69, &[&said]);
    assert!(proxy.heads().is_empty());

    let world = trusting(&its_own).env("HTTPS_PROXY", &format!("https://localhost:{}", proxy.address.port()));
    let token = world.token_file();
    let args = ["register", "--server", URL, "--token-file", &token, "--name", "web1"];
    world.run(&args).says(69, &["the TLS connection to https://hb.invalid is not trusted"]);
    assert_eq!(proxy.heads().len(), 1);
    let world = world.env("HB_PIN", &site.pin());
    world.run(&args).says(0, &[]);
    world.run(&["beat"]).says(0, &[]);
    assert_eq!(server.stored().len(), 1);
}

#[test]
fn what_is_said_now_goes_before_the_proxy_of_the_enrolment() {
    let (world, server, proxy) = behind_a_proxy();
    let world = world.env("HTTPS_PROXY", &format!("http://{}", proxy.address));
    register(&world, &[]);
    proxy.heads();
    let other = Proxy::to(server.address);
    let other_url = format!("http://{}", other.address);

    let world = world.env("HTTPS_PROXY", &other_url);
    world.run(&["beat"]).says(0, &[]);
    assert_eq!((proxy.heads().len(), other.heads().len()), (0, 1), "the environment");

    let world = world.env("HTTPS_PROXY", "");
    let config = world.state().join("agent.toml");
    fs::write(&config, format!("proxy = \"{other_url}\"\n")).unwrap();
    world.run(&["beat"]).says(0, &[]);
    assert_eq!((proxy.heads().len(), other.heads().len()), (0, 1), "the configuration");

    fs::write(&config, "no_proxy = \"hb.invalid\"\n").unwrap();
    world.run(&["beat"]).says(69, &["could not resolve hb.invalid"]);
    fs::remove_file(&config).unwrap();
    let world = world.env("NO_PROXY", "*");
    world.run(&["beat"]).says(69, &["could not resolve hb.invalid"]);
    assert_eq!((proxy.heads().len(), other.heads().len()), (0, 0), "excepted");
}

#[test]
fn what_the_enrolment_did_not_go_through_is_not_remembered_and_exceptions_are() {
    let (world, server, proxy) = behind_a_proxy();
    let world = world.env("HTTPS_PROXY", &format!("http://{}", proxy.address)).env("NO_PROXY", "a.invalid");
    register(&world, &[]);
    let record = || fs::read_to_string(world.state().join("enrolment.toml")).unwrap();
    assert!(record().contains("no_proxy = \"a.invalid\""), "{}", record());
    let shown = world.run(&["identity", "show"]).stdout;
    assert!(shown.contains(&format!("proxy     http://{}, but not to a.invalid\n", proxy.address)), "{shown}");
    // Enrolling again goes the same way.
    let world = world.env("HTTPS_PROXY", "").env("NO_PROXY", "");
    register(&world, &["--force"]);
    let record = fs::read_to_string(world.state().join("enrolment.toml")).unwrap();
    assert!(record.contains("proxy = ") && record.contains("no_proxy = \"a.invalid\""), "{record}");
    assert!(server.seen().iter().all(|seen| seen.path == "/v1/hosts"));

    let direct = Server::plain();
    let world = World::new().env("ALL_PROXY", "http://127.0.0.1:1").env("NO_PROXY", "127.0.0.1");
    world.enrol(&direct, &[]);
    let record = fs::read_to_string(world.state().join("enrolment.toml")).unwrap();
    assert!(!record.contains("proxy"), "{record}");
}

#[test]
fn the_password_of_a_proxy_is_kept_where_nobody_else_reads_it_and_shown_nowhere() {
    let (world, _server, proxy) = behind_a_proxy();
    let world = world.env("HTTPS_PROXY", &format!("http://user:s3cret@{}", proxy.address));
    register(&world, &[]);
    assert_eq!(mode(&world), 0o600);
    let world = world.env("HTTPS_PROXY", "").env("HB_LOG", "trace");
    proxy.heads();
    let mut said = Vec::new();
    for args in [
        &["-v", "beat"][..],
        &["doctor"],
        &["doctor", "--json"],
        &["identity", "show"],
        &["identity", "show", "--json"],
        &["-v", "identity", "rotate"],
    ] {
        let run = world.run(args);
        run.says(0, &[]);
        said.push(format!("{run:?}"));
    }
    assert_eq!(mode(&world), 0o600, "after a rotation, too");
    let heads = proxy.heads();
    assert!(heads.iter().all(|head| head.to_lowercase().contains("proxy-authorization: basic")), "{heads:?}");
    assert!(heads.iter().all(|head| head.contains(LOGIN)), "{heads:?}");
    let found = format!("http://{} (as at the enrolment)", proxy.address);
    assert!(said.iter().any(|run| run.contains(&found)), "{said:?}");
    let shown: Value = serde_json::from_str(&world.run(&["identity", "show", "--json"]).stdout).unwrap();
    assert_eq!(shown["proxy"], format!("http://{}", proxy.address));

    // A proxy that refuses, one that is no URL, and the agent's own log.
    let agent = world.agent();
    until("the agent beats", || !proxy.heads().is_empty());
    said.push(format!("{:?}", agent.stop()));
    for wrong in ["http://user:s3cret@127.0.0.1:1", "http://user:s3cret@[", "user:s3cret@"] {
        let world = World::new().env("HB_PROXY", wrong);
        let token = world.token_file();
        let run = world.run(&["-v", "register", "--server", URL, "--token-file", &token]);
        assert!([69, 78].contains(&run.code), "{run:?}");
        said.push(format!("{run:?}"));
    }
    let journal = fs::read_to_string(world.state().join("journal")).unwrap();
    said.push(journal);
    assert!(!said.iter().any(|text| text.contains("s3cret") || text.contains(LOGIN)), "{said:?}");
}

#[test]
fn the_services_account_can_read_the_password_of_a_proxy_and_no_other_account() {
    let (world, server, proxy) = behind_a_proxy();
    let proxy_url = format!("http://user:s3cret@{}", proxy.address);
    let run = world.as_root_in_own_mounts(&format!(
        "{SYSTEM}
        mkdir -m 755 /etc/hb
        cp $HB_CA_FILE /etc/hb/ca.pem
        export HB_CA_FILE=/etc/hb/ca.pem
        HTTPS_PROXY={proxy_url} \"$HB\" register --server {URL} --token-file token --name web1
        \"$HB\" beat
        stat -c '%n %u:%g %a' /etc/hb/enrolment.toml
        read() {{ setpriv --reuid $1 --regid $2 --clear-groups grep -c s3cret /etc/hb/enrolment.toml || echo none; }}
        read 4996 4995
        read 65534 65534"
    ));
    run.says(0, &["enrolment.toml: Permission denied"]);
    let said: Vec<&str> = run.stdout.lines().skip(1).collect();
    assert_eq!(said, ["/etc/hb/enrolment.toml 0:4995 640", "1", "none"]);
    assert_eq!(server.stored().len(), 1);
}
