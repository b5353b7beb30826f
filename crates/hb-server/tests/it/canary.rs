//! The canary: hb finds out by itself that nobody can reach it, and that its public name leads nowhere from inside.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::client::Host;
use crate::receiver::Receiver;
use crate::server::{Data, Server};

/// A network that can be cut, between the public address and the server.
struct Uplink {
    address: SocketAddr,
    target: Arc<OnceLock<SocketAddr>>,
    is_cut: Arc<AtomicBool>,
}

impl Uplink {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (target, is_cut) = (Arc::new(OnceLock::<SocketAddr>::new()), Arc::new(AtomicBool::new(false)));
        let (to, cut) = (Arc::clone(&target), Arc::clone(&is_cut));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let Some(target) = to.get().filter(|_| !cut.load(Ordering::Relaxed)) else { continue };
                let Ok(server) = TcpStream::connect(target) else { continue };
                pump(stream.try_clone().unwrap(), server.try_clone().unwrap());
                pump(server, stream);
            }
        });
        Self { address, target, is_cut }
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream) {
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            if to.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
}

fn observing(server: &Server) -> (u16, bool) {
    let answer = server.client().request("GET", "/v1/status", &[], b"").unwrap();
    (answer.status, answer.json()["observing"].as_bool().unwrap())
}

fn wait_until(patience: Duration, what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < patience, "not within {patience:?}: {what}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn with_the_uplink_cut_nobody_is_accused_and_when_it_is_back_the_dead_are_found() {
    let data = Data::init();
    let (receiver, uplink) = (Receiver::start(), Uplink::start());
    let public = format!("http://{}", uplink.address);
    let server = data.serve_with(&["--listen", "127.0.0.1:0"], &[("HB_SERVER_PUBLIC_URL", &public)]);
    uplink.target.set(server.address).unwrap();
    let mut client = server.client().called(&uplink.address.to_string());
    client.add_webhook(&data.key, &receiver.url());
    // Long enough for a canary to have taken the public path.
    std::thread::sleep(Duration::from_secs(11));
    let mut host = Host::enrol(&mut client, &data.key, "web1", 2, 2);
    assert_eq!(host.beat(&mut client).unwrap(), 200);
    uplink.is_cut.store(true, Ordering::Relaxed);
    std::thread::sleep(Duration::from_secs(9));
    assert_eq!(receiver.count("down"), 0, "its silence may be the uplink's");
    wait_until(Duration::from_secs(40), "hb notices that it is deaf", || observing(&server) == (503, false));
    uplink.is_cut.store(false, Ordering::Relaxed);
    wait_until(Duration::from_secs(20), "hb hears again", || observing(&server) == (200, true));
    assert_eq!(receiver.count("down"), 0, "what it needs was never observed");
    receiver.wait_for("the down", Duration::from_secs(100), |all| all.iter().any(|arrival| arrival.event() == "down"));
    server.stop();
}

#[test]
fn a_public_url_that_leads_nowhere_from_inside_is_warned_of_once_and_hb_watches_all_the_same() {
    let data = Data::init();
    let receiver = Receiver::start();
    let nowhere = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let public = format!("https://{nowhere}");
    let mut server = data.serve_with(&["--listen", "127.0.0.1:0"], &[("HB_SERVER_PUBLIC_URL", &public)]);
    server.wait_for_line("the public URL cannot be reached from this machine");
    let mut client = server.client().called(&nowhere.to_string());
    client.add_webhook(&data.key, &receiver.url());
    let mut host = Host::enrol(&mut client, &data.key, "web1", 2, 2);
    assert_eq!(host.beat(&mut client).unwrap(), 200);
    receiver.wait_for("the down", Duration::from_secs(10), |all| all.iter().any(|arrival| arrival.event() == "down"));
    std::thread::sleep(Duration::from_secs(10));
    assert_eq!(observing(&server), (200, true));
    let log = server.stop();
    let warnings = log.iter().filter(|line| line.contains("WARN")).count();
    assert_eq!(warnings, 1, "{log:#?}");
}
