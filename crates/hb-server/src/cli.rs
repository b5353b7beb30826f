//! The command line: what can be typed, and what its help says. No behaviour.

use core::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

/// hb's server: takes heartbeats, finds out who fell silent, and tells people.
#[derive(Debug, Parser)]
#[command(
    name = "hb-server",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 100,
    after_help = EXAMPLES
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  hb-server init --data /var/lib/hb-server          make the database, print the first admin key
  hb-server serve --data /var/lib/hb-server --listen 0.0.0.0:8600
                                                    serve over TLS on every address
  hb-server backup --data /var/lib/hb-server --to /backup/hb-$(date +%F).db
                                                    a backup, while the server runs

Every key of server.toml has an environment variable HB_SERVER_…; a flag goes before it, the file after it. \
Exit codes: 0 done; 1 failed, or the answer is no; 2 misused; 70 a bug in hb; 77 not permitted; 78 configuration.";

/// Every command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make the database and a self-signed certificate, and print the first admin key
    #[command(after_help = "\
Examples:
  hb-server init --data /var/lib/hb-server
  hb-server init --data ./hb > admin.key            the key alone is on stdout

The key is shown once. The certificate's fingerprint (sha256:…) is on stderr: hosts pin it with \
`hb register --pin sha256:…`. Run again it changes nothing, says so, and exits 1.")]
    Init(Init),
    /// Serve
    #[command(after_help = "\
Examples:
  hb-server serve --data ./hb --listen 127.0.0.1:8600       plain http, this machine only
  hb-server serve --data ./hb --listen 0.0.0.0:8600         TLS with the certificate of `init`
  hb-server serve --data ./hb --listen [::]:443 --tls-cert cert.pem --tls-key key.pem
  hb-server serve --data ./hb --listen 127.0.0.1:0          any free port; see stderr for which

SIGTERM and SIGINT: finish what is in flight, exit 0. SIGHUP: read the certificate and the configuration again.")]
    Serve(Serve),
    /// Copy the database into one file, while the server runs
    #[command(after_help = "\
Examples:
  hb-server backup --data /var/lib/hb-server --to /backup/hb.db

The copy is as of one moment, checked, and for its owner alone. An existing file is not overwritten.")]
    Backup(Backup),
    /// Put a backup in the place of the database; the server must not run
    #[command(after_help = "\
Examples:
  systemctl stop hb-server
  hb-server restore --data /var/lib/hb-server --from /backup/hb.db
  systemctl start hb-server

The backup is checked first, and what it replaces is kept beside it. Hosts go on by themselves: each needs one more \
round trip for a fresh nonce. One that was enrolled or changed its key after the backup is refused: retire it \
(hb hosts retire NAME), then enrol it again (hb register --force).")]
    Restore(Restore),
    /// Check the database; works while the server runs
    #[command(after_help = "\
Examples:
  hb-server check --data /var/lib/hb-server         exits 0 when all is well, else 1")]
    Check(Check),
    /// Make another admin key, when the first one was lost; the server must not run
    #[command(after_help = "\
Examples:
  hb-server admin-key --data /var/lib/hb-server --name \"anna, after the move\"

Whoever may write the database may do this. Revoke what was lost with `hb keys revoke`.")]
    AdminKey(AdminKey),
    /// Print the manual
    #[command(after_help = "\
Examples:
  hb-server man | man -l -")]
    Man,
    /// Print a completion script for a shell
    #[command(after_help = "\
Examples:
  hb-server completions bash > /etc/bash_completion.d/hb-server
  hb-server completions zsh > ~/.zfunc/_hb-server
  hb-server completions fish > ~/.config/fish/completions/hb-server.fish")]
    Completions(Completions),
}

/// Where the data is.
#[derive(Debug, Clone, Args)]
pub struct Data {
    /// The directory with the database and the self-signed certificate
    #[arg(long = "data", value_name = "DIR", env = "HB_SERVER_DATA", default_value = "/var/lib/hb-server")]
    pub dir: PathBuf,
}

/// Arguments of `init`.
#[derive(Debug, Clone, Args)]
pub struct Init {
    /// Where the data is.
    #[command(flatten)]
    pub data: Data,
    /// A name or address for the self-signed certificate, besides this machine's own
    #[arg(long, value_name = "HOST")]
    pub name: Vec<String>,
}

/// Arguments of `serve`.
#[derive(Debug, Clone, Args)]
pub struct Serve {
    /// Where the data is.
    #[command(flatten)]
    pub data: Data,
    /// Where to listen; port 0 takes any free one [default: 127.0.0.1:8600]
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,
    /// The certificate chain, PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// The configuration
    #[arg(long, value_name = "FILE", env = "HB_SERVER_CONFIG")]
    pub config: Option<PathBuf>,
    /// Plain http off loopback: only behind something that encrypts
    #[arg(long)]
    pub insecure_http: bool,
}

/// Arguments of `backup`.
#[derive(Debug, Clone, Args)]
pub struct Backup {
    /// Where the data is.
    #[command(flatten)]
    pub data: Data,
    /// The file to write; must not exist
    #[arg(long, value_name = "FILE")]
    pub to: PathBuf,
}

/// Arguments of `restore`.
#[derive(Debug, Clone, Args)]
pub struct Restore {
    /// Where the data is.
    #[command(flatten)]
    pub data: Data,
    /// The backup
    #[arg(long, value_name = "FILE")]
    pub from: PathBuf,
}

/// Arguments of `check`.
#[derive(Debug, Clone, Args)]
pub struct Check {
    /// Where the data is.
    #[command(flatten)]
    pub data: Data,
}

/// Arguments of `admin-key`.
#[derive(Debug, Clone, Args)]
pub struct AdminKey {
    /// Where the data is.
    #[command(flatten)]
    pub data: Data,
    /// What the key is for
    #[arg(long, value_name = "TEXT", default_value = "admin")]
    pub name: String,
}

/// Arguments of `completions`.
#[derive(Debug, Clone, Args)]
pub struct Completions {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: Shell,
}
