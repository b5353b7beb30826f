//! Two network namespaces with a cable between them: the server's, in which the test itself runs, and the host's.
//!
//! Needs root, `ip` and `nft`. A test that cannot have them fails: one that was skipped would pass for one that passed.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

use crate::machine::Machine;
use crate::server::{Data, Server, text};

/// What the server is called, and where it listens.
pub(super) const NAME: &str = "hb.test";
pub(super) const URL: &str = "https://hb.test:8600";
pub(super) const SERVER_V4: &str = "10.99.0.1";
/// It shares more bits with the host's, so a name server's order gives way to it (RFC 6724, rule 9).
pub(super) const SERVER_V4_NEARER: &str = "10.99.0.3";
pub(super) const SERVER_V6: &str = "fd99::1";
/// Each end of the cable.
const CABLE: &str = "wire";
/// The header of Ethernet, which an interface counts, and IP does not.
const ETHERNET_BYTES: u64 = 14;

/// How the host's packets end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// Nobody ever hears of them again.
    Dropped,
    /// Each connection is answered with a reset.
    Refused,
    /// The host's own interface is down.
    Unplugged,
}

pub(super) struct Lab {
    server: Namespace,
    host: Namespace,
    /// Where the test's thread came from.
    home: File,
}

impl Lab {
    /// A lab with a host whose `/etc/hosts` is this. The calling thread, and what it starts, is at the server's end.
    pub(super) fn new(hosts: &str) -> Self {
        assert!(rustix::process::geteuid().is_root(), "this test makes network namespaces: run it as root");
        tool("nft");
        Namespace::sweep();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let home = File::open("/proc/thread-self/ns/net").unwrap();
        let server = Namespace::new(&format!("{number}s"));
        let host = Namespace::new(&format!("{number}h"));
        let peer = ["type", "veth", "peer", "name", CABLE, "netns", host.name.as_str()];
        server.ip(&[&["link", "add", CABLE], &peer[..]].concat());
        server.plug(&[SERVER_V4, SERVER_V4_NEARER], &[SERVER_V6]);
        host.plug(&["10.99.0.2"], &["fd99::2"]);
        server.etc("hosts", &format!("127.0.0.1 localhost {NAME}\n"));
        host.etc("hosts", hosts);
        // Where nobody answers, unless the test starts a name server there.
        host.etc("resolv.conf", "nameserver 10.99.0.1\noptions timeout:1 attempts:1\n");
        server.etc("resolv.conf", "nameserver 10.99.0.1\n");
        move_into_link_name_space(File::open(server.path()).unwrap().as_fd(), Some(LinkNameSpaceType::Network))
            .unwrap();
        Self { server, host, home }
    }

    /// One whose host finds the server by IPv4.
    pub(super) fn simple() -> Self {
        Self::new(&format!("{SERVER_V4} {NAME}\n"))
    }

    pub(super) fn data() -> Data {
        Data::init_with(&["--name", NAME])
    }

    /// The server, over TLS, at every address of its end (`[::]:8600`) or of one family (`0.0.0.0:8600`).
    pub(super) fn serve(&self, data: &Data, listen: &str) -> Server {
        let mut command = Command::new(tool("ip"));
        command.args(["netns", "exec", &self.server.name, env!("CARGO_BIN_EXE_hb-server")]);
        command.args(["serve", "--data", data.path().to_str().unwrap(), "--listen", listen]).stdin(Stdio::null());
        command.env_remove("NOTIFY_SOCKET").env_remove("JOURNAL_STREAM");
        command.env("HB_SERVER_PUBLIC_URL", URL).env("HB_SERVER_ALLOW_NETWORKS", "127.0.0.0/8");
        Server::spawn(&mut command)
    }

    /// A machine at the host's end.
    pub(super) fn machine(&self) -> Machine {
        self.host.machine()
    }

    /// A host that pins the server, and is called down after three seconds of silence.
    #[track_caller]
    pub(super) fn enrolled(&self, data: &Data, name: &str) -> Machine {
        let machine = self.machine();
        machine.enrol(data, URL, name, &["--grace", "2s", "--pin", &data.fingerprint]);
        machine
    }

    /// Whoever looks after the fleet, at the server's end.
    pub(super) fn operator(&self, data: &Data) -> Machine {
        let machine = self.server.machine().env("HB_SERVER", URL).env("HB_API_KEY", &data.key);
        machine.env("HB_PIN", &data.fingerprint)
    }

    /// Changes a file of the host's `/etc`, under its running programs.
    pub(super) fn etc(&self, name: &str, content: &str) {
        self.host.etc(name, content);
    }

    /// Takes all addresses of a family (`-4` or `-6`) from the host, those of its loopback too.
    pub(super) fn strip(&self, family: &str) {
        for interface in [CABLE, "lo"] {
            self.host.ip(&[family, "addr", "flush", "dev", interface]);
        }
    }

    pub(super) fn cut(&self, cut: Cut) {
        match cut {
            Cut::Dropped => self.filter(r#"iifname "wire" drop"#),
            Cut::Refused => self.filter(r#"iifname "wire" tcp dport 8600 reject with tcp reset"#),
            Cut::Unplugged => drop(self.host.ip(&["link", "set", CABLE, "down"])),
        }
    }

    pub(super) fn heal(&self) {
        self.filter("");
        self.host.ip(&["link", "set", CABLE, "up"]);
    }

    /// Replaces the rules for what arrives at the server's end.
    pub(super) fn filter(&self, rules: &str) {
        self.rules(rules, "");
    }

    /// As [`Lab::filter`]; and who connects to the server gets to this port instead. Connections that stand are reset.
    pub(super) fn divert(&self, port: u16) {
        let elsewhere = format!(r#"iifname "wire" tcp dport 8600 redirect to :{port}"#);
        self.rules(r#"iifname "wire" tcp dport 8600 reject with tcp reset"#, &elsewhere);
    }

    fn rules(&self, filter: &str, divert: &str) {
        let chains = |filter: &str, divert: &str| {
            format!(
                "table inet lab {{
                chain arrived {{ type filter hook input priority 0; {filter}
                }}
                chain diverted {{ type nat hook prerouting priority -100; tcp dport 9 redirect; {divert}
                }}
                }}\n"
            )
        };
        // A connection that was diverted goes on where it is: the chains stay, and so does a rule that nothing meets, without
        // which the kernel would forget all connections. In one transaction.
        let rules = format!("{}flush table inet lab\n{}", chains("", ""), chains(filter, divert));
        let mut command = Command::new(tool("ip"));
        command.args(["netns", "exec", &self.server.name]).arg(tool("nft")).args(["-f", "-"]);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{rules}");
    }

    /// How many packets each rule with a counter has met, in order.
    pub(super) fn counted(&self) -> Vec<u64> {
        let mut command = Command::new(tool("ip"));
        command
            .args(["netns", "exec", &self.server.name])
            .arg(tool("nft"))
            .args(["-j", "list", "table", "inet", "lab"]);
        let listed: Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
        let rules = listed["nftables"].as_array().unwrap().iter().filter_map(|item| item["rule"]["expr"].as_array());
        rules.flatten().filter_map(|part| part["counter"]["packets"].as_u64()).collect()
    }

    /// What went over the cable so far, in both directions: bytes of IP (and of ARP), and packets.
    pub(super) fn traffic(&self) -> (u64, u64) {
        let shown = self.host.ip(&["-s", "-j", "link", "show", CABLE]);
        let shown: Value = serde_json::from_str(&shown).unwrap();
        let of = |what: &str| {
            let stats = &shown[0]["stats64"];
            stats["rx"][what].as_u64().unwrap() + stats["tx"][what].as_u64().unwrap()
        };
        let (bytes, packets) = (of("bytes"), of("packets"));
        (bytes - packets * ETHERNET_BYTES, packets)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // For the next test, where one thread runs them all. The namespaces go by themselves.
        let _ = move_into_link_name_space(self.home.as_fd(), Some(LinkNameSpaceType::Network));
    }
}

static COUNT: AtomicUsize = AtomicUsize::new(0);
const PREFIX: &str = "hbtest-";

/// A network namespace; gone when dropped.
struct Namespace {
    name: String,
}

impl Namespace {
    fn new(suffix: &str) -> Self {
        let namespace = Self { name: format!("{PREFIX}{}-{suffix}", std::process::id()) };
        run(&["netns", "add", &namespace.name]);
        namespace.ip(&["link", "set", "lo", "up"]);
        namespace
    }

    /// Removes what tests that were killed left behind.
    fn sweep() {
        let Ok(entries) = fs::read_dir("/run/netns") else { return };
        for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
            let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
            if owner.is_some_and(|owner| !Path::new("/proc").join(owner).exists()) {
                // Another test may be sweeping, too.
                drop(Self { name });
            }
        }
    }

    fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// Where `ip netns exec` looks for what to put over `/etc`.
    fn etc_dir(&self) -> PathBuf {
        Path::new("/etc/netns").join(&self.name)
    }

    fn etc(&self, name: &str, content: &str) {
        fs::create_dir_all(self.etc_dir()).unwrap();
        fs::write(self.etc_dir().join(name), content).unwrap();
    }

    fn ip(&self, args: &[&str]) -> String {
        run(&[&["-n", self.name.as_str()], args].concat())
    }

    /// Gives its end of the cable these addresses.
    fn plug(&self, v4: &[&str], v6: &[&str]) {
        for address in v4 {
            self.ip(&["addr", "add", &format!("{address}/24"), "dev", CABLE]);
        }
        for address in v6 {
            self.ip(&["-6", "addr", "add", &format!("{address}/64"), "dev", CABLE, "nodad"]);
        }
        // No address of the link's own: what it asks the neighbours for would be counted as hb's.
        self.ip(&["link", "set", CABLE, "addrgenmode", "none"]);
        self.ip(&["link", "set", CABLE, "up"]);
    }

    fn machine(&self) -> Machine {
        Machine::within(&[tool("ip").to_str().unwrap(), "netns", "exec", &self.name])
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let mut command = Command::new(tool("ip"));
        let _ = command.args(["netns", "del", &self.name]).stderr(Stdio::null()).status();
        let _ = fs::remove_dir_all(self.etc_dir());
    }
}

fn run(args: &[&str]) -> String {
    let output = Command::new(tool("ip")).args(args).output().unwrap();
    assert!(output.status.success(), "ip {}: {}", args.join(" "), text(&output.stderr));
    text(&output.stdout)
}

/// Where a program of the system's is. Not everybody's PATH holds `sbin`.
fn tool(name: &str) -> PathBuf {
    let mut places = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(|dir| Path::new(dir).join(name)).into_iter();
    let found = places.find(|path| path.exists());
    found.unwrap_or_else(|| panic!("there is no {name}: apt install iproute2 nftables (tools/setup.sh does)"))
}
