//! Where this host's files are: one layout for the system's agent, another for one that is run by hand.
//!
//! | | system | by hand |
//! | --- | --- | --- |
//! | key, enrolment | `/etc/hb/host.key`, `/etc/hb/enrolment.toml` | the data folder (`HB_STATE_DIR`) |
//! | configuration | `/etc/hb/agent.toml` | the data folder |
//! | journal, lock | `/var/lib/hb/` | the data folder |

use std::path::{Path, PathBuf};

use crate::env::Env;
use crate::error::Failure;
use crate::journal::StateDir;

/// The system's configuration folder.
pub const SYSTEM_CONFIG_DIR: &str = "/etc/hb";
/// The system's state folder.
pub const SYSTEM_STATE_DIR: &str = "/var/lib/hb";
/// The name of the enrolment record.
pub const ENROLMENT_FILE: &str = "enrolment.toml";
/// The name of the private key.
pub const KEY_FILE: &str = "host.key";
/// The name of the configuration.
pub const CONFIG_FILE: &str = "agent.toml";

/// Where everything is.
#[derive(Debug, Clone)]
pub struct Place {
    /// True for the system's agent, false for one that is run by hand.
    pub system: bool,
    /// Holds the key and the enrolment.
    pub dir: PathBuf,
    /// Holds the journal and the lock.
    pub state: StateDir,
    /// The configuration.
    pub config: PathBuf,
    /// The configuration was named by `HB_CONFIG`: then it must be there.
    pub config_is_named: bool,
    /// The key as handed over by systemd (`LoadCredential=hostkey:…`), when it was.
    pub credential: Option<PathBuf>,
}

impl Place {
    /// Finds the layout: `HB_STATE_DIR`; else the system's for root, for the service, and where only the system is
    /// enrolled; else the user's own data folder.
    ///
    /// # Errors
    /// 78 without a home directory.
    pub fn find(env: &Env) -> Result<Self, Failure> {
        let root = rustix::process::geteuid().is_root();
        let own = || {
            let dirs = directories::ProjectDirs::from("", "", "hb").ok_or_else(|| {
                Failure::config("there is no home directory to keep the agent's files in")
                    .hint("set HB_STATE_DIR to a folder that this user can write, or run as root")
            })?;
            Ok::<_, Failure>(dirs.data_dir().to_owned())
        };
        if let Some(dir) = &env.state_dir {
            return Ok(Self::by_hand(dir.clone(), env));
        }
        let service = env.credentials_dir.is_some() || env.state_directory.is_some();
        if root || service {
            return Ok(Self::of_system(env));
        }
        let own = own()?;
        let system_only =
            !own.join(ENROLMENT_FILE).exists() && Path::new(SYSTEM_CONFIG_DIR).join(ENROLMENT_FILE).exists();
        Ok(if system_only { Self::of_system(env) } else { Self::by_hand(own, env) })
    }

    /// The enrolment record.
    pub fn enrolment(&self) -> PathBuf {
        self.dir.join(ENROLMENT_FILE)
    }

    /// The private key, wherever it was handed over.
    pub fn key(&self) -> PathBuf {
        self.credential.clone().unwrap_or_else(|| self.dir.join(KEY_FILE))
    }

    fn by_hand(dir: PathBuf, env: &Env) -> Self {
        let config = env.config.clone().unwrap_or_else(|| dir.join(CONFIG_FILE));
        Self {
            system: false,
            state: StateDir::new(dir.clone()),
            config,
            config_is_named: env.config.is_some(),
            credential: credential(env),
            dir,
        }
    }

    fn of_system(env: &Env) -> Self {
        let dir = PathBuf::from(SYSTEM_CONFIG_DIR);
        // systemd separates several folders by colons; the first one is ours.
        let state = env.state_directory.as_deref().and_then(|list| list.split(':').next()).unwrap_or(SYSTEM_STATE_DIR);
        Self {
            system: true,
            state: StateDir::new(state),
            config: env.config.clone().unwrap_or_else(|| dir.join(CONFIG_FILE)),
            config_is_named: env.config.is_some(),
            credential: credential(env),
            dir,
        }
    }
}

fn credential(env: &Env) -> Option<PathBuf> {
    let path = env.credentials_dir.as_ref()?.join("hostkey");
    path.exists().then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_folder_holds_everything() {
        let env = Env { state_dir: Some("/srv/hb".into()), ..Env::default() };
        let place = Place::find(&env).unwrap();
        assert!(!place.system);
        assert_eq!(place.enrolment(), Path::new("/srv/hb/enrolment.toml"));
        assert_eq!(place.key(), Path::new("/srv/hb/host.key"));
        assert_eq!(place.config, Path::new("/srv/hb/agent.toml"));
        assert_eq!(place.state.path(), Path::new("/srv/hb"));
    }

    #[test]
    fn a_service_reads_the_systems_files_and_writes_where_systemd_says() {
        let env = Env { state_directory: Some("/run/a:/run/b".into()), ..Env::default() };
        let place = Place::find(&env).unwrap();
        assert!(place.system);
        assert_eq!(place.dir, Path::new("/etc/hb"));
        assert_eq!(place.state.path(), Path::new("/run/a"));
    }

    #[test]
    fn a_key_that_systemd_hands_over_goes_before_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let env =
            Env { credentials_dir: Some(dir.path().to_owned()), state_dir: Some("/srv/hb".into()), ..Env::default() };
        assert_eq!(Place::find(&env).unwrap().key(), Path::new("/srv/hb/host.key"));
        std::fs::write(dir.path().join("hostkey"), "x").unwrap();
        assert_eq!(Place::find(&env).unwrap().key(), dir.path().join("hostkey"));
    }
}
