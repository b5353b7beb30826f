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
        vitals.load1 = System::load_average().ok().map(|load| load.one).filter(|load| load.is_finite());
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

#[cfg(test)]
mod tests {
    use super::*;

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
