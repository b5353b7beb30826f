//! The state directory: whatever is wrong with it, the beat is sent, and says so.

use std::fs;

use hb_wire::beat::Fault;

use super::server::Server;
use super::world::World;

#[test]
fn a_journal_cut_at_any_length_costs_no_beat() {
    let server = Server::plain();
    let world = World::enrolled(&server);
    world.run(&["beat"]).says(0, &[]);
    let path = world.state().join("journal");
    let whole = fs::read(&path).unwrap();
    // Every length is cut in the journal's own tests; here each cut is a whole run of the program.
    for length in (0..whole.len()).step_by(97) {
        fs::write(&path, &whole[..length]).unwrap();
        world.run(&["beat"]).says(0, &["journal", "cannot be used", "starting a new one"]);
    }
    assert_eq!(server.stored().len(), 1 + whole.len().div_ceil(97));
    // Whole but damaged, or something else altogether.
    let mut flipped = whole.clone();
    for slot in flipped.chunks_mut(whole.len() / 2) {
        slot[100] ^= 0x20;
    }
    for odd in [flipped, vec![0; 4096], vec![0xff; 100_000], b"{}".to_vec()] {
        fs::write(&path, odd).unwrap();
        world.run(&["beat"]).says(0, &["cannot be used"]);
    }
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    world.run(&["beat"]).says(0, &["journal", "cannot be"]);
    assert_eq!(server.stored().last().unwrap().degraded, [Fault::StateUnwritable]);
}

#[test]
fn a_full_disk_is_told_in_the_beat() {
    let server = Server::plain();
    let world = World::enrolled(&server);
    let run = world.in_own_mounts(
        "cp -a \"$HB_STATE_DIR\" copy
         mount -t tmpfs -o size=64k tmpfs \"$HB_STATE_DIR\"
         cp -a copy/. \"$HB_STATE_DIR\"
         head -c 1000000 /dev/zero > \"$HB_STATE_DIR/fill\" || true
         \"$HB\" beat
         rm \"$HB_STATE_DIR/fill\"
         exec \"$HB\" beat",
    );
    run.says(0, &["cannot be written", "No space left"]);
    let degraded: Vec<_> = server.stored().iter().map(|beat| beat.degraded.clone()).collect();
    assert_eq!(degraded, [vec![Fault::DiskFull], vec![]], "and it is over when there is space again");
}

#[test]
fn a_read_only_state_directory_is_told_in_the_beat() {
    let server = Server::plain();
    let world = World::enrolled(&server);
    let run = world.in_own_mounts(
        "cp -a \"$HB_STATE_DIR\" copy
         mount -t tmpfs tmpfs \"$HB_STATE_DIR\"
         cp -a copy/. \"$HB_STATE_DIR\"
         mount -o remount,ro \"$HB_STATE_DIR\"
         exec \"$HB\" beat",
    );
    run.says(0, &["cannot be written", "Read-only file system"]);
    assert_eq!(server.stored()[0].degraded, [Fault::StateUnwritable]);
}

#[test]
fn a_daemon_whose_disk_fills_up_says_so_once_and_goes_on() {
    let server = Server::plain();
    let world = World::enrolled(&server);
    server.set_interval(1);
    let run = world.in_own_mounts(
        "cp -a \"$HB_STATE_DIR\" copy
         mount -t tmpfs -o size=64k tmpfs \"$HB_STATE_DIR\"
         cp -a copy/. \"$HB_STATE_DIR\"
         \"$HB\" agent & agent=$!
         sleep 2
         head -c 1000000 /dev/zero > \"$HB_STATE_DIR/fill\" || true
         sleep 3
         rm \"$HB_STATE_DIR/fill\"
         sleep 2
         kill $agent
         wait $agent",
    );
    run.says(0, &["this host is degraded: the disk is full", "can be written again"]);
    assert_eq!(run.stderr.matches("this host is degraded").count(), 1, "{run:?}");
    let degraded: Vec<bool> = server.stored().iter().map(|beat| !beat.degraded.is_empty()).collect();
    assert!(degraded.iter().any(|full| *full) && degraded.last() == Some(&false), "{degraded:?}");
}
