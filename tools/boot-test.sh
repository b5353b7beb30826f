#!/usr/bin/env bash
# The agent on a whole machine: Debian's own kernel and systemd, in an emulator without KVM. Its clock stands in 1970, the power
# fails, the clock stands in 2040; the limits of the unit hold in cgroups; the machine sleeps (ACPI S3), told before and not. Over
# TLS, whose certificate is valid in neither year. Needs root, and some minutes; everything stays in a network namespace and is
# removed afterwards.
part=boot
set -Eeuo pipefail
cd "$(dirname "$0")/.."
[[ -n ${PKG_DEBS:-} ]] || { tools/setup.sh packages; tools/setup.sh boot; }
base=.cache/root/boot.tar.zst
if [[ ! -e $base ]]; then
    echo "boot: making a Debian root with a kernel, once"
    mkdir -p "$(dirname "$base")"
    mmdebstrap --quiet --variant=minbase --mode=root \
        --include=systemd,systemd-sysv,dbus,udev,kmod,initramfs-tools,busybox,zstd,linux-image-cloud-amd64 \
        bookworm "$base.new.tar.zst"
    mv "$base.new.tar.zst" "$base"
fi
if [[ -z ${PKG_DEBS:-} ]]; then
    tools/deb.sh --quick amd64
    PKG_DEBS=target/debian-quick PKG_PROGRAMS=target/x86_64-unknown-linux-musl/quick
    PKG_OLD=$(sed -n '/^\[workspace.package\]/,/^$/s/^version = "\(.*\)"/\1/p' Cargo.toml)
    export PKG_DEBS PKG_PROGRAMS PKG_OLD PKG_NEW=$PKG_OLD
fi
boot_base=$base
. tools/packaging/lib.sh
base=$boot_base

since() { events vm1 | tail -n "+$((marked + 1))" | grep -qE "^$1$"; }
mark() { marked=$(events vm1 | wc -l); }
# on_console SECONDS WHAT PATTERN
on_console() { wait_for "$1" "$2" grep -qaE "$3" "$work/console"; }
start() { # DATE [WORD]: of the machine's own clock, and of the system's, which systemd would not let be that old
    : >"$work/console"
    ip netns exec "$net" qemu-system-x86_64 -machine pc,accel=tcg -cpu max -smp 1 -m 512 -no-reboot -display none -serial stdio \
        -monitor "unix:$work/monitor,server=on,wait=off" \
        -rtc "base=$1,clock=vm" -drive "file=$work/disk,format=raw,if=virtio,cache=writeback" \
        -netdev user,id=n0,restrict=off -device virtio-net-pci,netdev=n0 \
        -kernel "$work/vmlinuz" -initrd "$work/initrd" \
        -append "root=/dev/vda rw console=ttyS0 systemd.show_status=0 quiet net.ifnames=0 hb.clock=$(date -u -d "$1" +%s) ${2:-}" \
        </dev/null >"$work/console" 2>&1 &
    machine=$!
    children+=("$machine")
}
# As if somebody pressed a key.
wake() { python3 -c 'import socket, sys, time
monitor = socket.socket(socket.AF_UNIX)
monitor.connect(sys.argv[1])
monitor.sendall(b"system_wakeup\n")
time.sleep(1)' "$work/monitor"; }
boot_ok() { # DATE YEAR CAUSE [WORD]
    mark
    start "$1" "${4:-}"
    on_console 200 "the machine to boot" 'HB-REPORT date='
    wait_for 60 "the server to hear of it" since "$3"
    grep -aqE "HB-REPORT date=$2" "$work/console" || fail "the clock says: $(grep -a HB-REPORT "$work/console")"
    wait_for 60 "the host to be up" state vm1 up
}
fail_with_console() { tail -n 40 "$work/console" 2>/dev/null || true; }
trap 'fail_with_console >&3; fail "line $LINENO: $BASH_COMMAND"' ERR

new_root vm1
mv "$root"/boot/vmlinuz-* "$work/vmlinuz"
mv "$root"/boot/initrd.img-* "$work/initrd"
new_net
# The emulator's own network shows the loopback of the namespace as 10.0.2.2; the root, before it boots, finds it there too.
ip -n "$net" address add 10.0.2.2/32 dev lo
key=$("$programs/hb-server" init --data "$work/data" 2>"$work/init.log")
# Good for a year. The server's own would have no end that matters.
must openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -subj /CN=hb -addext subjectAltName=IP:10.0.2.2 \
    -addext basicConstraints=critical,CA:FALSE -keyout "$work/key.pem" -out "$work/cert.pem"
chmod 600 "$work/key.pem"
chmod 644 "$work/cert.pem"
url=https://10.0.2.2:8600
ip netns exec "$net" env HB_SERVER_PUBLIC_URL=$url HB_SERVER_TLS_CERT="$work/cert.pem" HB_SERVER_TLS_KEY="$work/key.pem" "$programs/hb-server" serve --data "$work/data" --listen 0.0.0.0:8600 2>"$work/server.log" &
children+=($!)
wait_for 30 "the server" grep -q 'listening on' "$work/server.log"
tell() { ip netns exec "$net" env HB_SERVER="$url" HB_CA_FILE="$work/cert.pem" HB_API_KEY="$key" XDG_CONFIG_HOME="$work" "$hb" "$@"; }
tell tokens create --uses 1 --expires 1h >"$work/token" 2>/dev/null
must chroot "$root" dpkg -i "/debs/$(basename "$agent_old")"
cp "$work/token" "$root/root/token"
# By its authority, not by a pin: a pin asks for no date.
cp "$work/cert.pem" "$root/etc/hb/ca.pem"
sed -i '1i ca_file = "/etc/hb/ca.pem"' "$root/etc/hb/agent.toml"
must ip netns exec "$net" chroot "$root" env HB_SERVER=$url HB_TOKEN_FILE=/root/token hb register --name vm1 --interval 5s --grace 10s
rm -r "$root/root/token" "$root/debs"
printf '[Match]\nName=eth0\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\n' >"$root/etc/systemd/network/eth0.network"
cat >"$root/etc/systemd/system/clock.service" <<'UNIT'
[Unit]
Before=hb.service
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'for word in $$(cat /proc/cmdline); do case $$word in hb.clock=*) date -u -s "@$${word#hb.clock=}" ;; esac; done'
[Install]
WantedBy=multi-user.target
UNIT
# Tells on the console what only the machine itself can see: the limits, and that a process among the agent's can make no more than
# they allow.
cat >"$root/usr/local/bin/report" <<'SH'
#!/bin/sh
sleep 3
group=/sys/fs/cgroup/system.slice/hb.service
sh -c "echo \$\$ >$group/cgroup.procs; i=0; while [ \$i -lt 40 ]; do sleep 2 & i=\$((i + 1)); echo \$i >/run/forks; done" 2>/run/refusal
{
    echo
    echo "HB-REPORT date=$(date -u +%Y) memory.max=$(cat $group/memory.max) pids.max=$(cat $group/pids.max)" \
        "forks=$(cat /run/forks) refusal=$(head -n 1 /run/refusal | tr ' ' _) memory.current=$(cat $group/memory.current)" \
        "active=$(systemctl is-active hb)"
} >/dev/ttyS0
SH
chmod 755 "$root/usr/local/bin/report"
cat >"$root/etc/systemd/system/report.service" <<'UNIT'
[Unit]
After=hb.service
[Service]
Type=oneshot
ExecStart=/usr/local/bin/report
[Install]
WantedBy=multi-user.target
UNIT
# Sleeps twice: first so that nobody is told, then as systemd does it, which runs the hook.
cat >"$root/etc/systemd/system/doze.service" <<'UNIT'
[Unit]
After=report.service
ConditionKernelCommandLine=hb.doze
[Service]
Type=simple
ExecStart=/bin/sh -c 'say() { echo; echo "HB-$$1"; } >/dev/ttyS0; \
    sleep 15; say "DOZE unheard"; echo mem >/sys/power/state; sleep 25; say "DOZE told"; systemctl suspend; sleep 60'
[Install]
WantedBy=multi-user.target
UNIT
# A login prompt would hang up the console.
chroot "$root" systemctl mask --quiet serial-getty@ttyS0.service
chroot "$root" systemctl enable --quiet systemd-networkd clock report doze
rm -f "$root/var/lib/systemd/timesync/clock"
truncate -s 1500M "$work/disk"
mkfs.ext4 -q -d "$root" "$work/disk"
rm -rf --one-file-system "$root"
root=$work/none

boot_ok 1970-02-01T00:00:00 1970 'up .*|[a-z_]+ rebooted|registered .*'
report=$(grep -a 'HB-REPORT' "$work/console" | tr -d '\r')
grep -qE 'memory.max=67108864 pids.max=32 forks=(29|30|31) refusal=.*fork.* active=active' <<<"$report" \
    || fail "the limits are not those of the unit, or do not hold: $report"
ok "boots with its clock set to 1970, beats over TLS; the unit's limits are set, and the one on processes holds (${report#*HB-REPORT })"
sleep 6
mark
kill -9 "$machine"
wait "$machine" 2>/dev/null || true
wait_for 60 "the alarm" since 'down .*'
boot_ok 2040-01-01T00:00:00 2040 '[a-z_]+ crashed' hb.doze
ok "the power fails: down; boots with its clock set to 2040, beats over TLS, told as crashed"
# Thirteen years, at least.
tell status vm1 --json 2>/dev/null | python3 -c 'import json, sys; assert json.load(sys.stdin)["hosts"][0]["clock_skew_s"] > 13 * 365 * 86400' \
    || fail "nobody is told that the clock is wrong: $(tell status vm1 --json 2>/dev/null)"
ok "the server says by how much the clock is wrong"
mark
on_console 90 "the machine to fall asleep" 'HB-DOZE unheard'
wait_for 60 "the alarm" since 'down .*'
sleep 10
wake
wait_for 60 "the return to be explained" since 'up suspended'
ok "sleeps unheard: down; wakes, told as suspended"
mark
on_console 90 "the machine to fall asleep as systemd has it" 'HB-DOZE told'
wait_for 60 "the goodbye" state vm1 stopped
sleep 30
state vm1 stopped || fail "a sleep that was announced is not over, and not an alarm: $(events vm1)"
wake
wait_for 60 "the return to be explained" since '[a-z_]+ suspended'
! since 'down .*' || fail "a sleep that was announced is told as down: $(events vm1)"
ok "sleeps as systemd has it: the hook says goodbye, no alarm; wakes, told as suspended"
note "5 passed, 0 failed"
