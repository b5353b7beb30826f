//! Cheap readings: load, memory, space on the root file system. No list of processes, no walk over mounts (one of
//! which may hang for ever).

use hb_wire::beat::Vitals;
use sysinfo::{MemoryRefreshKind, System};

/// Reads the vitals; keeps what is worth keeping between two readings.
#[derive(Debug)]
pub struct Readings {
    system: Option<System>,
    cpus: Option<u32>,
}

impl Default for Readings {
    fn default() -> Self {
        Self::new()
    }
}

impl Readings {
    /// A reader; reads nothing yet.
    pub fn new() -> Self {
        let cpus = std::thread::available_parallelism().ok().and_then(|count| u32::try_from(count.get()).ok());
        Self { system: System::new().ok(), cpus }
    }

    /// Reads now. What cannot be read is absent.
    pub fn read(&mut self) -> Vitals {
        let mut vitals = Vitals { cpus: self.cpus, ..Vitals::default() };
        vitals.load1 = load1();
        if let Some(system) = &mut self.system {
            system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
            if system.total_memory() > 0 {
                vitals.mem_total_bytes = Some(system.total_memory());
                vitals.mem_used_bytes = Some(system.total_memory().saturating_sub(system.available_memory()));
            }
        }
        if let Ok(root) = rustix::fs::statvfs("/") {
            vitals.disk_total_bytes = Some(root.f_blocks.saturating_mul(root.f_frsize));
            vitals.disk_free_bytes = Some(root.f_bavail.saturating_mul(root.f_frsize));
        }
        vitals
    }
}

/// The load average over a minute, to two digits as `/proc/loadavg` shows it: one system call instead of six.
fn load1() -> Option<f64> {
    let [one, ..] = rustix::system::sysinfo().loads;
    // Fixed point with 16 bits after the point (sysinfo(2)).
    let load = f64::from(u32::try_from(one).ok()?) / 65_536.0;
    Some((load * 100.0).round() / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_is_the_one_that_the_system_shows() {
        // It changes every five seconds: one of a few looks falls between two changes.
        let same = (0..5).any(|_| {
            let shown = System::load_average().unwrap().one;
            load1().is_some_and(|load| (load - shown).abs() < 0.015)
        });
        assert!(same, "{:?} is not {:?}", load1(), System::load_average());
    }

    #[test]
    fn the_readings_of_this_machine_make_sense() {
        let vitals = Readings::new().read();
        let total = vitals.mem_total_bytes.unwrap();
        assert!(total > 16 * 1024 * 1024 && vitals.mem_used_bytes.unwrap() <= total);
        assert!(vitals.disk_free_bytes.unwrap() <= vitals.disk_total_bytes.unwrap());
        assert!(vitals.load1.unwrap() >= 0.0);
        assert!(vitals.cpus.unwrap() >= 1);
    }
}
