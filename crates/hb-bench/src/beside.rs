//! The agents that a sysadmin might pick instead of hb, as Debian packages them, on loopback and with nobody to report to but
//! loopback.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::process::{Child, Command};

use crate::agent::Size;
use crate::measure::cpu;

/// How long they have to come to rest.
const SETTLE: Duration = Duration::from_secs(10);

/// One of them.
#[derive(Debug)]
pub(crate) struct Other {
    pub(crate) name: &'static str,
    /// It sends unsigned, without TLS: it may take less than hb.
    pub(crate) is_plain: bool,
    child: Child,
}

impl Other {
    fn pid(&self) -> Result<u32> {
        self.child.id().with_context(|| format!("{} has ended", self.name))
    }

    pub(crate) fn cpu(&self) -> Result<Duration> {
        cpu(self.pid()?)
    }

    pub(crate) fn size(&self) -> Result<Size> {
        Size::of(self.pid()?)
    }

    pub(crate) async fn stop(&mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }
}

/// Starts them.
pub(crate) async fn start(dir: &Path) -> Result<Vec<Other>> {
    let zabbix = dir.join("zabbix.conf");
    let socket = |name: &str| dir.join(name).display().to_string();
    let (control, plugin) = (socket("zabbix.control"), socket("zabbix.plugin"));
    std::fs::write(
        &zabbix,
        format!(
            "LogType=console\nServer=127.0.0.1\nListenIP=127.0.0.1\nListenPort=20050\nHostname=bench\nControlSocket={control}\nPluginSocket={plugin}\n"
        ),
    )?;
    let collectd = dir.join("collectd.conf");
    let plugins = ["memory", "load", "uptime", "network"].map(|name| format!("LoadPlugin {name}\n")).concat();
    std::fs::write(
        &collectd,
        format!(
            "BaseDir \"{}\"\nInterval 60\n{plugins}<Plugin network>\n Server \"127.0.0.1\" \"20051\"\n</Plugin>\n",
            dir.display()
        ),
    )?;
    let path = |file: &Path| file.display().to_string();
    let others = [
        ("zabbix-agent2", false, "/usr/sbin/zabbix_agent2", vec!["-f".to_owned(), "-c".to_owned(), path(&zabbix)]),
        (
            "prometheus-node-exporter",
            false,
            "/usr/bin/prometheus-node-exporter",
            vec!["--web.listen-address=127.0.0.1:20052".to_owned()],
        ),
        (
            "collectd (memory, load, uptime; plain UDP)",
            true,
            "/usr/sbin/collectd",
            vec!["-f".to_owned(), "-C".to_owned(), path(&collectd)],
        ),
    ];
    let mut started = Vec::new();
    for (name, is_plain, program, args) in others {
        ensure!(
            Path::new(program).exists(),
            "there is no {program}; hint: apt-get install --no-install-recommends zabbix-agent2 prometheus-node-exporter collectd-core"
        );
        let child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        started.push(Other { name, is_plain, child });
    }
    tokio::time::sleep(SETTLE).await;
    for other in &started {
        other.size().with_context(|| format!("{} did not stay", other.name))?;
    }
    Ok(started)
}
