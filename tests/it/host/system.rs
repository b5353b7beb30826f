//! The system's layout: `/etc/hb`, `/var/lib/hb`, and the account `_hb`, in mounts that nobody else sees.

use super::server::Server;
use super::world::World;

/// A system of its own with the account `_hb`.
pub(super) const SYSTEM: &str = "
    unset HB_STATE_DIR
    mount -t tmpfs tmpfs /var/lib
    cp -a /etc etc
    echo '_hb:x:4996:4995::/:/usr/sbin/nologin' >> etc/passwd
    mount --bind etc /etc
    ";

#[test]
fn root_enrols_the_system_and_beats_as_the_services_account() {
    let server = Server::plain();
    server.set_interval(1);
    let world = World::new();
    let run = world.as_root_in_own_mounts(&format!(
        "{SYSTEM}
        \"$HB\" register --server {} --token-file token --name web1
        \"$HB\" beat
        \"$HB\" agent & agent=$!
        sleep 2
        grep -h '^[UG]id:\\|^Groups:' /proc/$agent/task/*/status | sort -u
        kill $agent
        wait $agent
        stat -c '%n %u:%g %a' /etc/hb/host.key /etc/hb/enrolment.toml /var/lib/hb /var/lib/hb/journal",
        server.url()
    ));
    run.says(0, &["systemd does not run here", "the first beat is stored", "knows (service)"]);
    let said: Vec<String> =
        run.stdout.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(
        said,
        [
            "Gid: 4995 4995 4995 4995",
            "Groups:",
            "Uid: 4996 4996 4996 4996",
            "/etc/hb/host.key 0:0 600",
            "/etc/hb/enrolment.toml 0:0 644",
            "/var/lib/hb 4996:4995 700",
            "/var/lib/hb/journal 4996:4995 600",
        ]
    );
    assert!(server.stored().iter().all(|beat| beat.degraded.is_empty()), "the account can write its journal");
}

#[test]
fn files_that_root_left_behind_are_given_to_the_account() {
    let server = Server::plain();
    let world = World::new();
    let run = world.as_root_in_own_mounts(&format!(
        "{SYSTEM}
        \"$HB\" register --server {} --token-file token
        mkdir -m 700 /var/lib/hb
        echo old > /var/lib/hb/journal
        chmod 600 /var/lib/hb/journal
        exec \"$HB\" beat",
        server.url()
    ));
    run.says(0, &["journal", "damaged"]);
    assert!(server.stored()[0].degraded.is_empty());
}

#[test]
fn a_key_from_the_service_manager_is_used_and_its_mode_is_not_our_business() {
    let server = Server::plain();
    let world = World::new();
    let run = world.as_root_in_own_mounts(&format!(
        "{SYSTEM}
        \"$HB\" register --server {} --token-file token
        mkdir credentials
        mv /etc/hb/host.key credentials/hostkey
        chmod 440 credentials/hostkey
        ! \"$HB\" beat
        export CREDENTIALS_DIRECTORY=$PWD/credentials STATE_DIRECTORY=/var/lib/hb
        exec \"$HB\" beat",
        server.url()
    ));
    run.says(0, &["host.key is gone"]);
    assert_eq!(server.stored().len(), 1);
}

#[test]
fn a_resolver_that_is_away_does_not_keep_a_beat_from_an_address_that_was_good() {
    let server = Server::plain();
    let world = World::new().env("HB_INSECURE_HTTP", "1");
    let url = server.url().replace("127.0.0.1", "hb-test.invalid");
    server.books.lock().unwrap().beat_urls = Some(vec![format!("{url}/v1/beat")]);
    server.answer_to(&url);
    let run = world.in_own_mounts(&format!(
        "cp /etc/hosts without
        cp without hosts
        echo '127.0.0.1 hb-test.invalid' >> hosts
        mount --bind hosts /etc/hosts
        \"$HB\" register --server {url} --token-file token
        \"$HB\" beat
        cat without > hosts
        \"$HB\" beat
        rm \"$HB_STATE_DIR/journal\"
        ! \"$HB\" beat",
    ));
    run.says(0, &["could not resolve hb-test.invalid"]);
    assert_eq!(server.stored().len(), 2, "{run:?}");
}

#[test]
fn an_address_of_a_name_that_swallows_everything_does_not_keep_a_beat_from_the_next_one() {
    // The resolver puts 127.0.0.1 first (RFC 6724, rule 9).
    // On a port that nobody has at the other address.
    let is_free = |server: &Server| std::net::TcpListener::bind(("127.0.0.1", server.address.port())).is_ok();
    let server = std::iter::repeat_with(|| Server::plain_at("127.0.0.2")).find(is_free).unwrap();
    let world = World::new().env("HB_INSECURE_HTTP", "1");
    let url = server.url().replace("127.0.0.2", "hb-test.invalid");
    server.books.lock().unwrap().beat_urls = Some(vec![format!("{url}/v1/beat")]);
    server.answer_to(&url);
    let port = url.rsplit_once(':').unwrap().1;
    // A queue that is full answers nobody, like a machine that is gone.
    let run = world.in_own_mounts(&format!(
        "cp /etc/hosts hosts
        printf '127.0.0.2 hb-test.invalid\n127.0.0.1 hb-test.invalid\n' >> hosts
        mount --bind hosts /etc/hosts
        python3 -c '
import socket, sys, time
full = socket.socket()
full.bind((\"127.0.0.1\", {port}))
full.listen(0)
held = [socket.socket() for _ in range(8)]
for one in held:
    one.setblocking(False)
    one.connect_ex((\"127.0.0.1\", {port}))
print(\"full\", flush=True)
time.sleep(100)' > full & full=$!
        until grep -q full full; do kill -0 $full; sleep 0.1; done
        \"$HB\" register --server {url} --token-file token
        \"$HB\" beat
        kill $full",
    ));
    run.says(0, &[]);
    assert_eq!(server.stored().len(), 1, "{run:?}");
    assert!(run.took > std::time::Duration::from_secs(4), "the first address was not tried: {run:?}");
}
