//! Operators' profiles: which server, with which key. One file, readable by its owner alone.
//!
//! The environment can replace a profile, but a saved key never follows to another server: it would hand the key to
//! whoever runs that one.

use core::fmt;
use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use hb_wire::api_key::{Secret, SecretKind};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::context::Ctx;
use crate::error::Failure;
use crate::http;

/// The profile that is used when none is named.
const DEFAULT: &str = "default";
/// Longest name of a profile.
const NAME_BYTES_MAX: usize = 64;

/// Which server to talk to; flattened into every operator's command.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Choice {
    /// Use this saved profile instead of the default one
    #[arg(long, global = true, value_name = "NAME", help_heading = "Server")]
    pub server_profile: Option<String>,
}

/// A server and how to reach and convince it.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its URL.
    pub server: Url,
    /// The API key.
    pub key: Secret,
    /// How to reach it.
    pub transport: Transport,
}

/// How to reach a server, beyond its URL.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transport {
    /// `sha256:…` of its certificate.
    pub pin: Option<String>,
    /// Trust only the certificate authorities in this PEM file.
    pub ca_file: Option<PathBuf>,
    /// Allow plain http off loopback.
    pub insecure_http: bool,
}

/// One profile as saved.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    server: String,
    api_key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pin: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ca_file: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    insecure_http: bool,
}

impl fmt::Debug for Saved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Saved").field("server", &self.server).finish_non_exhaustive()
    }
}

/// The file of profiles.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profiles {
    /// The name of the profile that is used when none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    default: Option<String>,
    #[serde(default)]
    profile: BTreeMap<String, Saved>,
}

/// The target of a command: the environment, then the chosen profile.
///
/// # Errors
/// 78 when there is none, or it cannot be used.
pub fn target(ctx: &Ctx, choice: &Choice) -> Result<Target, Failure> {
    let profiles = || Profiles::load(&path()?);
    if let Some(server) = &ctx.env.server {
        if choice.server_profile.is_some() {
            return Err(Failure::usage("--server-profile and HB_SERVER both name a server").hint("unset HB_SERVER"));
        }
        let server = http::parse_server(server).map_err(|failure| Failure { exit: crate::exit::CONFIG, ..failure })?;
        let saved = if ctx.env.api_key.is_some() { None } else { Some(profiles()?.for_server(&server)?) };
        return Ok(match (saved, &ctx.env.api_key) {
            (Some(target), _) => Target { transport: environment(ctx, target.transport), ..target },
            (None, key) => Target {
                server,
                key: api_key(key.as_deref().unwrap_or_default(), "HB_API_KEY")?,
                transport: environment(ctx, Transport::default()),
            },
        });
    }
    let mut target = profiles()?.named(choice.server_profile.as_deref().or(ctx.env.profile.as_deref()))?;
    if let Some(key) = &ctx.env.api_key {
        target.key = api_key(key, "HB_API_KEY")?;
    }
    target.transport = environment(ctx, target.transport);
    Ok(target)
}

/// What the environment says about reaching the server, over what is given.
pub fn environment(ctx: &Ctx, given: Transport) -> Transport {
    let env = &ctx.env;
    Transport {
        pin: env.pin.clone().or(given.pin),
        ca_file: env.ca_file.clone().or(given.ca_file),
        insecure_http: env.insecure_http.as_deref().map_or(given.insecure_http, |value| value == "1"),
    }
}

/// Reads an API key; `source` says where it came from. A typo is found here, without asking the server.
///
/// # Errors
/// 78, without the key.
pub fn api_key(text: &str, source: &str) -> Result<Secret, Failure> {
    let key = Secret::parse(text.trim())
        .map_err(|error| Failure::config(format!("the API key from {source} is not one: {error}")).hint(KEY_HINT))?;
    match key.kind() {
        SecretKind::ApiKey => Ok(key),
        SecretKind::Token => Err(Failure::config(format!("{source} holds an enrolment token, not an API key"))
            .hint("enrolment tokens are for `hb register`; make a key with `hb keys create`")),
    }
}

const KEY_HINT: &str = "copy it again, whole: hbk_ and 45 more characters";

impl Profiles {
    /// Reads the file; without one there are no profiles.
    ///
    /// # Errors
    /// 78 when others can read it, or it is not what hb wrote.
    pub fn load(path: &Path) -> Result<Self, Failure> {
        let meta = match fs::metadata(path) {
            Ok(meta) => meta,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(unreadable(path, &error)),
        };
        let mode = meta.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(Failure::config(format!(
                "{} holds API keys and is open to others (mode {mode:04o})",
                path.display()
            ))
            .hint(format!("chmod 600 {}; if others may have read it, rotate its keys", path.display())));
        }
        let text = fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
        toml::from_str(&text).map_err(|error| {
            // The message only: the excerpt that comes with it may show a key.
            let at = error.span().map(|span| text[..span.start].matches('\n').count() + 1);
            let line = at.map(|line| format!(", line {line}")).unwrap_or_default();
            Failure::config(format!("{}{line}: {}", path.display(), error.message()))
                .hint("correct it, or delete it and run `hb login` again")
        })
    }

    /// Writes the file, whole or not at all, readable by its owner alone.
    ///
    /// # Errors
    /// 1 when it cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), Failure> {
        let text = toml::to_string_pretty(self).map_err(|_| Failure::bug("profiles could not be written as TOML"))?;
        write_private(path, &text).map_err(|error| {
            Failure::failed(format!("{} could not be written: {error}", path.display()))
                .hint("check the folder's owner and mode, and the space on its file system")
        })
    }

    /// The profile of that name, or the default one.
    ///
    /// # Errors
    /// 78 when there is none.
    pub fn named(&self, name: Option<&str>) -> Result<Target, Failure> {
        let wanted = self.wanted(name);
        match self.profile.get(wanted) {
            Some(saved) => saved.target(wanted),
            None if self.profile.is_empty() => Err(Failure::config("no server is known yet")
                .hint("run `hb login https://…`, or set HB_SERVER and HB_API_KEY")),
            None => Err(Failure::config(format!("there is no profile {wanted:?}"))
                .hint(format!("there are: {}", self.names().join(", ")))),
        }
    }

    /// The profile whose server is `server`.
    fn for_server(&self, server: &Url) -> Result<Target, Failure> {
        let mut targets = self.profile.iter().map(|(name, saved)| saved.target(name));
        targets.find(|target| target.as_ref().is_ok_and(|target| target.server == *server)).unwrap_or_else(|| {
            Err(Failure::config(format!("HB_SERVER names {server}, for which no API key is saved"))
                .hint(format!("set HB_API_KEY as well, or run `hb login {server}`")))
        })
    }

    /// The name of the profile that is meant.
    pub fn wanted<'a>(&'a self, name: Option<&'a str>) -> &'a str {
        name.or(self.default.as_deref()).unwrap_or(DEFAULT)
    }

    /// Adds or replaces a profile; the first one, and every one that is replaced without a name, is the default.
    pub fn put(&mut self, name: &str, target: &Target) {
        let transport = target.transport.clone();
        let saved = Saved {
            server: target.server.to_string(),
            api_key: target.key.expose().to_owned(),
            pin: transport.pin,
            ca_file: transport.ca_file,
            insecure_http: transport.insecure_http,
        };
        self.profile.insert(name.to_owned(), saved);
        if self.default.as_ref().is_none_or(|default| !self.profile.contains_key(default)) {
            self.default = Some(name.to_owned());
        }
    }

    /// Removes a profile; true when it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        let found = self.profile.remove(name).is_some();
        if self.default.as_deref() == Some(name) {
            self.default = self.profile.keys().next().cloned();
        }
        found
    }

    /// Puts `new` where the key with the id `old` stands, in every profile of `server`; says how many.
    pub fn replace_key(&mut self, server: &Url, old: &str, new: &Secret) -> usize {
        let holds_old = |saved: &&mut Saved| {
            Url::parse(&saved.server).is_ok_and(|saved| saved == *server)
                && Secret::parse(&saved.api_key).is_ok_and(|key| key.id() == old)
        };
        let found = self.profile.values_mut().filter(holds_old);
        found.map(|saved| new.expose().clone_into(&mut saved.api_key)).count()
    }

    /// The names of all profiles.
    pub fn names(&self) -> Vec<&str> {
        self.profile.keys().map(String::as_str).collect()
    }

    /// True without any profile.
    pub fn is_empty(&self) -> bool {
        self.profile.is_empty()
    }
}

impl Saved {
    fn target(&self, name: &str) -> Result<Target, Failure> {
        let server = http::parse_server(&self.server).map_err(|failure| Failure {
            exit: crate::exit::CONFIG,
            message: format!("profile {name:?}: {}", failure.message),
            hint: failure.hint,
        })?;
        let transport =
            Transport { pin: self.pin.clone(), ca_file: self.ca_file.clone(), insecure_http: self.insecure_http };
        Ok(Target { server, key: api_key(&self.api_key, &format!("profile {name:?}"))?, transport })
    }
}

/// A name that can stand in the file and in a message.
///
/// # Errors
/// The rule, for clap.
pub fn parse_name(text: &str) -> Result<String, String> {
    let fits = |char: char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_' | '.');
    if text.is_empty() || text.len() > NAME_BYTES_MAX || !text.chars().all(fits) {
        return Err(format!("a profile's name is 1 to {NAME_BYTES_MAX} of A-Z, a-z, 0-9, '.', '-' and '_'"));
    }
    Ok(text.to_owned())
}

/// Where the profiles are.
///
/// # Errors
/// 78 without a home directory.
pub fn path() -> Result<PathBuf, Failure> {
    let dirs = directories::ProjectDirs::from("", "", "hb").ok_or_else(|| {
        Failure::config("there is no home directory to keep profiles in").hint("set HOME, or HB_SERVER and HB_API_KEY")
    })?;
    Ok(dirs.config_dir().join("profiles.toml"))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::config(format!("{} could not be read: {error}", path.display())).hint("check who owns it")
}

/// Writes beside the file, syncs, renames over it: a crash leaves the old file or the new one.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let folder = path.parent().ok_or(ErrorKind::InvalidInput)?;
    fs::create_dir_all(folder)?;
    let draft = path.with_extension(format!("toml.{}", std::process::id()));
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, path)?;
        fs::File::open(folder)?.sync_all()
    };
    write().inspect_err(|_| drop(fs::remove_file(&draft)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(server: &str, random: u8) -> Target {
        Target {
            server: Url::parse(server).unwrap(),
            key: Secret::mint(SecretKind::ApiKey, [random; 48]),
            transport: Transport::default(),
        }
    }

    #[test]
    fn profiles_are_read_back_as_they_were_written_and_by_their_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hb/profiles.toml");
        let mut profiles = Profiles::load(&path).unwrap();
        assert!(profiles.is_empty());
        let transport =
            Transport { pin: Some("sha256:00".into()), ca_file: Some("/ca.pem".into()), insecure_http: true };
        profiles.put("default", &Target { transport: transport.clone(), ..target("https://hb.example/", 1) });
        profiles.put("lab", &target("http://127.0.0.1:9/", 2));
        profiles.save(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let read = Profiles::load(&path).unwrap();
        let default = read.named(None).unwrap();
        assert_eq!(default.server.as_str(), "https://hb.example/");
        assert_eq!(default.key.expose(), target("https://x", 1).key.expose());
        assert_eq!(default.transport, transport);
        assert_eq!(read.named(Some("lab")).unwrap().transport, Transport::default());
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no draft is left behind");
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("profiles.toml");
        for mode in [0o640, 0o604, 0o620] {
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let failure = Profiles::load(&path).unwrap_err();
            assert_eq!(failure.exit, crate::exit::CONFIG);
            assert!(failure.message.ends_with(&format!("is open to others (mode {mode:04o})")), "{failure}");
        }
    }

    #[test]
    fn a_broken_file_is_reported_by_line_and_without_its_contents() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("profiles.toml");
        write_private(&path, "[profile.a]\nserver = \"https://h\"\napi_key = \"hbk_secret\"\nkey = \"hbk_secret\"\n")
            .unwrap();
        let failure = Profiles::load(&path).unwrap_err();
        assert_eq!(failure.exit, crate::exit::CONFIG);
        assert!(failure.message.contains("line 4: unknown field `key`"), "{failure}");
        assert!(!failure.to_string().contains("secret"), "{failure}");
    }

    #[test]
    fn a_saved_key_goes_to_its_own_server_only() {
        let mut profiles = Profiles::default();
        profiles.put("a", &target("https://a.example/", 1));
        assert!(profiles.for_server(&Url::parse("https://a.example").unwrap()).is_ok());
        let failure = profiles.for_server(&Url::parse("https://b.example").unwrap()).unwrap_err();
        assert_eq!(failure.exit, crate::exit::CONFIG);
        assert_eq!(failure.message, "HB_SERVER names https://b.example/, for which no API key is saved");
    }

    #[test]
    fn removing_the_default_profile_makes_another_one_the_default() {
        let mut profiles = Profiles::default();
        profiles.put("a", &target("https://a.example/", 1));
        profiles.put("b", &target("https://b.example/", 2));
        assert_eq!(profiles.wanted(None), "a");
        assert!(profiles.remove("a"));
        assert!(!profiles.remove("a"));
        assert_eq!(profiles.named(None).unwrap().server.as_str(), "https://b.example/");
    }

    #[test]
    fn a_rotated_key_is_replaced_where_it_stands() {
        let mut profiles = Profiles::default();
        profiles.put("a", &target("https://a.example/", 1));
        profiles.put("b", &target("https://b.example/", 1));
        let (old, new) = (target("https://x", 1).key, target("https://x", 2).key);
        assert_eq!(profiles.replace_key(&Url::parse("https://a.example").unwrap(), old.id(), &new), 1);
        assert_eq!(profiles.named(Some("a")).unwrap().key.id(), new.id());
        assert_eq!(profiles.named(Some("b")).unwrap().key.id(), old.id());
    }
}
