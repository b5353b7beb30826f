//! The host's clocks: the only place of the agent that reads them.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use hb_wire::id::{BootId, RunId};
use jiff::Timestamp;
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;

use super::memory::Moment;
use crate::env::Env;

/// Now, by the clocks that no step of the wall clock moves.
pub fn now() -> Moment {
    let boottime_ms = millis(clock_gettime(ClockId::Boottime));
    let monotonic_ms = millis(clock_gettime(ClockId::Monotonic));
    Moment { boottime_ms, suspended_ms: boottime_ms.saturating_sub(monotonic_ms) }
}

/// The wall clock, which may be wrong.
pub fn wall() -> Timestamp {
    Timestamp::now()
}

/// The boot id: the one that systemd hands to the service (`LoadCredential=bootid:…`), else the one in `/proc`; none
/// where neither is to be seen. In the service's sandbox `/proc` is mounted anew, and a container would find the id of
/// its host there, which no boot of the container changes.
pub fn boot_id() -> Option<BootId> {
    let handed_over = Env::of_process().credentials_dir.map(|dir| dir.join("bootid"));
    handed_over.as_deref().and_then(read_boot_id).or_else(|| read_boot_id(Path::new("/proc/sys/kernel/random/boot_id")))
}

fn read_boot_id(path: &Path) -> Option<BootId> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// 64 random bits.
///
/// # Errors
/// When the system has no randomness to give.
pub fn rand() -> io::Result<u64> {
    getrandom::u64().map_err(io::Error::other)
}

/// The id of a new run.
///
/// # Errors
/// When the system has no randomness to give.
pub fn new_run() -> io::Result<RunId> {
    let mut random = [0; 10];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let unix_ms = u64::try_from(wall().as_millisecond()).unwrap_or(0);
    Ok(RunId::mint(unix_ms, random))
}

/// An alarm on `CLOCK_BOOTTIME`: a host that was suspended past its time beats the moment it wakes, where a timer on
/// `CLOCK_MONOTONIC` would first wait out the rest.
#[derive(Debug)]
pub struct Alarm {
    fd: AsyncFd<OwnedFd>,
}

impl Alarm {
    /// An alarm that is not set. Needs a running tokio runtime.
    ///
    /// # Errors
    /// When the system gives no timer.
    pub fn new() -> io::Result<Self> {
        let fd = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        #[expect(deprecated, reason = "its successor is unsafe, for types that may lose their file; an OwnedFd cannot")]
        Ok(Self { fd: AsyncFd::new(fd)? })
    }

    /// Waits until `CLOCK_BOOTTIME` reaches `boottime_ms`; returns at once when it has.
    ///
    /// # Errors
    /// When the system refuses the timer.
    pub async fn until(&self, boottime_ms: u64) -> io::Result<()> {
        if boottime_ms <= now().boottime_ms {
            return Ok(());
        }
        let once = Itimerspec { it_interval: timespec(0), it_value: timespec(boottime_ms) };
        timerfd_settime(self.fd.get_ref(), TimerfdTimerFlags::ABSTIME, &once)?;
        loop {
            let mut ready = self.fd.readable().await?;
            let mut count = [0; 8];
            match rustix::io::read(self.fd.get_ref(), &mut count) {
                Ok(_) => return Ok(()),
                // Ready from an earlier setting that was replaced since.
                Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn timespec(ms: u64) -> Timespec {
    let seconds = i64::try_from(ms / 1000).unwrap_or(i64::MAX);
    Timespec { tv_sec: seconds, tv_nsec: i64::try_from(ms % 1000 * 1_000_000).unwrap_or(0) }
}

fn millis(time: Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn the_boot_clock_runs_and_the_boot_id_stays() {
        let before = now();
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(now().boottime_ms >= before.boottime_ms + 20);
        assert_eq!(boot_id(), boot_id());
    }

    #[test]
    fn an_alarm_rings_when_its_time_has_come_and_not_before_also_after_it_was_set_anew() {
        block_on(async {
            let alarm = Alarm::new().unwrap();
            alarm.until(0).await.unwrap();
            for wait_ms in [30, 1, 60] {
                let at = now().boottime_ms + wait_ms;
                alarm.until(at).await.unwrap();
                assert!(now().boottime_ms >= at);
            }
            // A wait that was given up leaves nothing behind for the next one.
            let given_up = now().boottime_ms + 10;
            tokio::select! {
                _ = alarm.until(given_up) => {}
                () = tokio::time::sleep(std::time::Duration::from_millis(2)) => {}
            }
            let at = now().boottime_ms + 50;
            alarm.until(at).await.unwrap();
            assert!(now().boottime_ms >= at);
        });
    }
}
