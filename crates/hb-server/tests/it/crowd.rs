//! Connections that want too much: slow ones, many, large heads. Beats go on meanwhile.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::client::Host;
use crate::server::Data;

fn half_open(address: SocketAddr, said: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(said).unwrap();
    stream.set_nonblocking(true).unwrap();
    stream
}

fn is_closed(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 256]) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}

#[test]
fn three_hundred_slow_connections_are_closed_in_time_while_beats_go_on() {
    let data = Data::init();
    let server = data.serve();
    let mut client = server.client();
    let mut host = Host::enrol(&mut client, &data.key, "web1", 1, 120);
    let said: [&[u8]; 3] = [b"", b"POST /v1/be", b"POST /v1/beat HTTP/1.1\r\nhost: x\r\nx-slow: "];
    let begun = Instant::now();
    let mut slow: Vec<TcpStream> = (0..300).map(|n| half_open(server.address, said[n % 3])).collect();
    let (mut closed_first, mut slowest) = (None, Duration::ZERO);
    while !slow.is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(9), "{} connections are still open", slow.len());
        // A byte now and then buys no time.
        for stream in slow.iter_mut().skip(1).step_by(2) {
            let _ = stream.write(b"x");
        }
        let asked = Instant::now();
        assert_eq!(host.beat(&mut client).unwrap(), 200);
        slowest = slowest.max(asked.elapsed());
        slow.retain_mut(|stream| !is_closed(stream));
        if closed_first.is_none() && slow.len() < 300 {
            closed_first = Some(begun.elapsed());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(closed_first.unwrap() >= Duration::from_secs(4), "{closed_first:?}: an honest slow client needs its time");
    assert!(slowest < Duration::from_secs(1), "a beat took {slowest:?}");
    server.stop();
}

#[test]
fn a_connection_may_rest_between_beats_for_longer_than_a_head_may_take() {
    let data = Data::init();
    let server = data.serve();
    let mut stream = TcpStream::connect(server.address).unwrap();
    let mut buffer = [0; 4096];
    for _ in 0..2 {
        stream.write_all(b"GET /v1/status HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let read = stream.read(&mut buffer).unwrap();
        assert!(buffer[..read].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&buffer[..read]));
        std::thread::sleep(Duration::from_secs(8));
    }
    stream.set_nonblocking(true).unwrap();
    assert!(!is_closed(&mut stream), "it rests");
    // The next head has begun, and its time runs.
    stream.write_all(b"GET /v1/sta").unwrap();
    std::thread::sleep(Duration::from_secs(7));
    assert!(is_closed(&mut stream));
    server.stop();
}

#[test]
fn with_every_place_taken_by_the_silent_a_host_still_gets_in() {
    let data = Data::init();
    let server = data.serve_with(&["--listen", "127.0.0.1:0"], &[("HB_SERVER_CONNECTIONS_MAX", "32")]);
    let mut client = server.client();
    let mut host = Host::enrol(&mut client, &data.key, "web1", 60, 120);
    let mut silent: Vec<TcpStream> = (0..40).map(|_| half_open(server.address, b"")).collect();
    std::thread::sleep(Duration::from_millis(200));
    let turned_away = silent.iter_mut().filter_map(|stream| {
        let mut answer = [0; 512];
        stream.read(&mut answer).ok().map(|read| String::from_utf8_lossy(&answer[..read]).into_owned())
    });
    let turned_away: Vec<String> = turned_away.collect();
    assert!(turned_away.len() >= 8, "{turned_away:?}");
    for answer in &turned_away {
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("\r\nRetry-After: 5\r\n"), "{turned_away:?}");
    }
    assert_eq!(host.beat(&mut client).unwrap(), 200, "who was here first stays");
    std::thread::sleep(Duration::from_millis(1100));
    for _ in 0..5 {
        assert_eq!(host.beat(&mut server.client()).unwrap(), 200, "a newcomer turns out the oldest of the silent");
    }
    server.stop();
}

#[test]
fn when_most_places_are_taken_newcomers_are_answered_and_asked_to_leave() {
    let data = Data::init();
    let server = data.serve_with(&["--listen", "127.0.0.1:0"], &[("HB_SERVER_CONNECTIONS_MAX", "32")]);
    let mut kept = Vec::new();
    for n in 0..64 {
        let mut client = server.client();
        let answer = client.request("GET", "/v1/status", &[], b"").unwrap();
        assert_eq!(answer.status, 200);
        let asked_to_leave = answer.head.to_ascii_lowercase().contains("connection: close");
        // The canary may come and go at any time.
        if !(20..=30).contains(&n) {
            assert_eq!(asked_to_leave, n > 30, "{n}");
        }
        kept.push(client);
    }
    server.stop();
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let data = Data::init();
    let server = data.serve();
    let large = "x".repeat(17 * 1024);
    let status = |headers: &[(&str, &str)]| server.client().request("GET", "/v1/status", headers, b"").unwrap().status;
    assert_eq!(status(&[("x-large", &large)]), 431);
    let names: Vec<String> = (0..70).map(|n| format!("x-{n}")).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    assert_eq!(status(&many), 431);
    assert_eq!(status(&many[..50]), 200);
    server.stop();
}
