//! What every command is given: where to print, what the environment says, and what time it is.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::env::Env;
use crate::output::Printer;

/// The surroundings of one command.
#[derive(Debug)]
pub struct Ctx {
    /// The only way to print.
    pub printer: Printer,
    /// True when the answer is to be one JSON document on stdout.
    pub json: bool,
    /// The environment.
    pub env: Env,
    /// The zone in which times are shown to people.
    pub zone: TimeZone,
}

impl Ctx {
    /// The wall clock. Good for showing and for asking the server about a span; never for deciding who is late.
    pub fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}
