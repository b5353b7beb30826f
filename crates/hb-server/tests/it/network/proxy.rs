//! A network whose only way out is a proxy.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::lab::{Lab, NAME, SERVER_V4, URL};
use crate::machine::{Machine, event, host, until};
use crate::server::{Data, text};

/// What opens a proxy that refuses everybody else: `hb:secret`.
const PASSWORD: &str = "proxy-authorization: Basic aGI6c2VjcmV0";

/// A proxy that knows CONNECT, at the server's end.
struct Proxy {
    url: String,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    /// What was asked for.
    asked: Vec<String>,
    /// The status that everybody gets.
    refusal: Option<&'static str>,
    tunnels: Vec<TcpStream>,
}

impl Proxy {
    fn start() -> Self {
        let listener = TcpListener::bind((SERVER_V4, 0)).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Mutex::new(Shared::default()));
        let keep = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&keep);
                // Whoever hangs up early has what they wanted.
                std::thread::spawn(move || drop(connect(&stream, &shared)));
            }
        });
        Self { url, shared }
    }

    fn asked(&self) -> Vec<String> {
        self.shared.lock().unwrap().asked.clone()
    }

    /// Answers everybody with this status, and closes what is open.
    fn refuse(&self, status: &'static str) {
        let mut shared = self.shared.lock().unwrap();
        shared.refusal = Some(status);
        for tunnel in shared.tunnels.drain(..) {
            let _ = tunnel.shutdown(Shutdown::Both);
        }
    }

    fn accept(&self) {
        self.shared.lock().unwrap().refusal = None;
    }
}

fn connect(mut stream: &TcpStream, shared: &Mutex<Shared>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let (mut header, mut has_password) = (String::new(), false);
    while reader.read_line(&mut header)? > 2 {
        has_password |= header.trim_end().eq_ignore_ascii_case(PASSWORD);
        header.clear();
    }
    let refusal = {
        let mut shared = shared.lock().unwrap();
        shared.asked.push(line.trim().trim_end_matches(" HTTP/1.1").to_owned());
        shared.tunnels.push(stream.try_clone()?);
        shared.refusal
    };
    if let Some(refusal) = refusal.filter(|_| !has_password) {
        return stream.write_all(format!("HTTP/1.1 {refusal}\r\ncontent-length: 0\r\n\r\n").as_bytes());
    }
    let server = TcpStream::connect("127.0.0.1:8600")?;
    stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    let (mut from, mut to) = (server.try_clone()?, stream.try_clone()?);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    });
    std::io::copy(&mut reader, &mut &server)?;
    server.shutdown(Shutdown::Both)
}

fn enrol(data: &Data, machine: &Machine, name: &str) {
    machine.enrol(data, URL, name, &["--grace", "1m", "--pin", &data.fingerprint]);
}

#[test]
fn beats_go_through_the_proxy_of_the_environment_and_what_it_refuses_is_its_fault() {
    // The host knows neither the server's name nor a way to it: the proxy does.
    let lab = Lab::new("");
    lab.filter(r#"iifname "wire" tcp dport 8600 counter drop"#);
    let data = Lab::data();
    let server = lab.serve(&data, "0.0.0.0:8600");
    let proxy = Proxy::start();
    let machine = lab.machine().env("HTTPS_PROXY", &proxy.url);
    enrol(&data, &machine, "web1");
    let agent = machine.agent();
    until("a beat through the proxy", || host(&data, &server, "web1")["state"] == "up");
    assert_eq!(
        proxy.asked(),
        [format!("CONNECT {NAME}:8600"), format!("CONNECT {NAME}:8600")],
        "two programs, no more"
    );

    for (status, meant) in [
        ("407 Proxy Authentication Required", "it wants a user and a password (407)"),
        ("403 Forbidden", "it refuses to"),
    ] {
        let lines = agent.log().lines().count();
        proxy.refuse(status);
        let new = || agent.log().lines().skip(lines).collect::<Vec<_>>().join("\n");
        until("the agent blames the proxy", || new().contains("a beat could not be sent (proxy"));
        let doctor = machine.run(&["doctor"]);
        assert_eq!(doctor.status.code(), Some(1), "{doctor:?}");
        let doctor = text(&doctor.stdout);
        assert!(doctor.contains("FAIL  proxy") && doctor.contains("NO_PROXY"), "{doctor}");
        for said in [new(), doctor] {
            assert!(said.contains(&proxy.url), "which proxy: {said}");
            assert!(said.contains(meant), "what it answered: {said}");
        }
        proxy.accept();
        until("beats are stored again", || new().contains("beats are stored by https://hb.test:8600 again"));
    }
    drop(agent);

    // A password opens it, and is shown to nobody.
    proxy.refuse("407 Proxy Authentication Required");
    let machine = lab.machine().env("HTTPS_PROXY", &proxy.url.replace("://", "://hb:secret@"));
    enrol(&data, &machine, "web2");
    let agent = machine.agent();
    until("a beat by password", || host(&data, &server, "web2")["state"] == "up");
    let doctor = machine.run(&["doctor"]);
    assert!(doctor.status.success(), "{doctor:?}");
    assert!(!text(&doctor.stdout).contains("secret") && !agent.log().contains("secret"), "{doctor:?}");
    assert_eq!(lab.counted(), [0], "nothing went past the proxy");
    drop(agent);

    // Excepted from the proxy, on a network that has another way.
    lab.etc("hosts", &format!("{SERVER_V4} {NAME}\n"));
    lab.heal();
    let asked = proxy.asked().len();
    let machine = lab.machine().env("HTTPS_PROXY", &proxy.url).env("NO_PROXY", NAME);
    enrol(&data, &machine, "web3");
    let _agent = machine.agent();
    until("a beat past the proxy", || host(&data, &server, "web3")["state"] == "up");
    event(&data, &server, "web3", "up");
    assert_eq!(proxy.asked().len(), asked, "{:?}", proxy.asked());
    server.stop();
}
