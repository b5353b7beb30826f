//! What the commands that run on a monitored host have in common.

use core::ops::Deref;

use tokio::runtime::{Builder, Runtime};

use crate::config::Config;
use crate::context::Ctx;
use crate::error::Failure;
use crate::http::Options;
use crate::identity::Enrolled;
use crate::place::Place;

/// How long a thread that resolved a name is kept, in case another name follows.
const RESOLVER_KEEP: std::time::Duration = std::time::Duration::from_secs(1);

/// Where this host's files are, and how its agent is configured.
///
/// # Errors
/// 78, saying what is wrong with the configuration.
pub fn setting(ctx: &Ctx) -> Result<(Place, Config), Failure> {
    let place = Place::find(&ctx.env)?;
    let config = Config::load(&place, &ctx.env)?;
    Ok((place, config))
}

/// How to reach the server of an enrolment: the configuration goes before what was true at the enrolment.
pub fn options(config: &Config, enrolled: &Enrolled) -> Options {
    Options {
        ca_file: config.ca_file.clone().or_else(|| enrolled.ca_file.clone()),
        pin: enrolled.pin.clone(),
        insecure_http: config.insecure_http || enrolled.insecure_http,
        proxy: config.proxy.clone(),
        no_proxy: config.no_proxy.clone(),
        remembered: enrolled.way(),
    }
}

/// One thread that does everything; name resolution borrows a second one for a moment.
///
/// # Errors
/// 1 when the system gives no resources.
pub fn runtime() -> Result<Worker, Failure> {
    let built =
        Builder::new_current_thread().enable_all().max_blocking_threads(2).thread_keep_alive(RESOLVER_KEEP).build();
    built.map(|runtime| Worker { runtime: Some(runtime) }).map_err(|error| {
        Failure::failed(format!("the system gave no resources to connect with: {error}"))
            .hint("raise the limits of open files and processes (ulimit -a), or end what uses them up")
    })
}

/// A runtime whose end does not wait for name servers that do not answer: the C library gives them ten seconds and more, and
/// nobody is left who wants to know.
#[derive(Debug)]
pub struct Worker {
    runtime: Option<Runtime>,
}

impl Deref for Worker {
    type Target = Runtime;

    fn deref(&self) -> &Runtime {
        self.runtime.as_ref().expect("it is there until the worker is dropped")
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
