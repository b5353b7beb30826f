#!/usr/bin/env bash
# The packages, on a real systemd: built, checked, installed into a booted Debian root, and driven through what happens to
# a server in its life, each seen rightly by an hb-server outside of it. Needs root; everything stays in a network
# namespace of its own and is removed afterwards.
set -euo pipefail
cd "$(dirname "$0")/.."
[[ $(id -u) == 0 ]] || { echo "packaging: systemd-nspawn needs root: sudo $0" >&2; exit 1; }

debs=target/debian-quick
base=.cache/root/bookworm.tar.zst
work=$(mktemp -d /tmp/hb-packaging.XXXXXX)
root=$work/root
net=hbp$$
passed=0 container='' server=''

note() { printf 'packaging: %s\n' "$*"; }
fail() {
    echo "packaging: FAILED: $*" >&2
    echo "--- events" >&2
    tell history --json 2>/dev/null | python3 -c 'import json,sys
for e in json.load(sys.stdin)["events"]: print(e["at"], e["event"], e.get("cause"), e.get("message"))' >&2 || true
    echo "--- the journal of the container" >&2
    journalctl --directory="$root/var/log/journal" --no-pager -n 400 -o short-precise | grep -E "hb|fail" | tail -n 60 >&2 || true
    tail -n 5 "$work/console" >&2
    tail -n 10 "$work/server.log" >&2 || true
    exit 1
}
ok() {
    passed=$((passed + 1))
    note "ok: $*"
}
# wait_for SECONDS WHAT COMMAND…
wait_for() {
    local until=$(($(date +%s%N) + $1 * 1000000000)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        (($(date +%s%N) < until)) || fail "waited in vain for: $what"
        sleep 0.1
    done
}

# --- the container

# Waits for the first process of the container, by the id of nspawn's child.
leader() { pgrep -P "$container" -x systemd | head -n 1; }
inside() { nsenter --target "$(leader)" --all env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root "$@"; }
is_booted() { inside systemctl is-system-running | grep -qE 'running|degraded'; }
boot() {
    systemd-nspawn --quiet --boot --directory="$root" --register=no --keep-unit --machine=pkg1 \
        --network-namespace-path="/run/netns/$net" --link-journal=no --resolv-conf=off --timezone=off \
        --console=pipe </dev/null >>"$work/console" 2>&1 &
    container=$!
    wait_for 60 "the container to boot" is_booted
}
is_gone() { ! kill -0 "$1" 2>/dev/null; }
is_rebooted() { [[ $(leader) != "$1" ]] && is_booted; }
# After `systemctl reboot`: nspawn either boots the root again by itself, or ends and has it booted again.
# follow_reboot FORMER-LEADER
follow_reboot() {
    wait_for 60 "the container to go down" is_gone "$1"
    wait_for 60 "the container to boot again" eval 'is_gone "$container" || is_rebooted '"$1"
    if is_gone "$container"; then
        wait "$container" 2>/dev/null || true
        boot
    fi
}
main_pid() { inside systemctl show -p MainPID --value hb.service; }
is_active() { [[ $(inside systemctl is-active "$1" || true) == "$2" ]]; }

# --- the server

tell() { ip netns exec "$net" env HB_SERVER="$url" HB_API_KEY="$key" XDG_CONFIG_HOME="$work" "$hb" "$@"; }
# state STATE: the server sees the host so.
state() { tell status pkg1 --json | grep -qE "\"state\": *\"$1\""; }
events() { tell history pkg1 --json | python3 -c 'import json,sys
for e in json.load(sys.stdin)["events"]: print(e["event"], e.get("cause") or "-")'; }
# mark; then since PATTERN: an event of this kind and cause came after the mark.
mark() { marked=$(events | wc -l); }
since() { events | tail -n "+$((marked + 1))" | grep -qE "^$1$"; }
never() { ! since "$1" || fail "there should be no event $1"; }

finish() {
    local code=$?
    set +e
    [[ -z $container ]] || { kill -9 "$(leader)" 2>/dev/null; kill "$container" 2>/dev/null; wait "$container" 2>/dev/null; }
    [[ -z $server ]] || { kill "$server" 2>/dev/null; wait "$server" 2>/dev/null; }
    ip netns del "$net" 2>/dev/null
    rm -rf "$work"
    exit "$code"
}
trap finish EXIT

# --- the packages

note "building the packages, unoptimised"
tools/deb.sh --quick amd64
old=$(sed -n '/^\[workspace.package\]/,/^$/s/^version = "\(.*\)"/\1/p' Cargo.toml)
new=$old+next
HB_DEB_VERSION=$new tools/deb.sh --quick amd64
agent_old=$debs/hb_${old}_amd64.deb agent_new=$debs/hb_${new}_amd64.deb server_old=$debs/hb-server_${old}_amd64.deb

# Words found in machine code are no spelling.
said=$(lintian --allow-root --pedantic --display-info --display-experimental --suppress-tags spelling-error-in-binary \
    "$agent_old" "$server_old" 2>&1 | grep -v 'running with root privileges') || true
[[ -z $said ]] || fail "lintian says: $said"
ok "lintian says nothing at its strictest"

for page in hb.1 hb-register.1; do
    dpkg-deb --fsys-tarfile "$agent_old" | tar -xO "./usr/share/man/man1/$page.gz" | gzip -d \
        | LC_ALL=C.UTF-8 man --warnings -E UTF-8 -l -Tutf8 -Z - 2>&1 >/dev/null | { ! grep .; } || fail "$page has errors"
done
# Every file that a package installs is named in its manual or stands where manuals and papers stand.
dpkg-deb --fsys-tarfile "$agent_old" | tar -xO ./usr/share/man/man5/agent.toml.5.gz | gzip -d >"$work/named"
dpkg-deb --fsys-tarfile "$server_old" | tar -xO ./usr/share/man/man5/server.toml.5.gz | gzip -d >>"$work/named"
sed -i 's/\\//g' "$work/named"
for package in "$agent_old" "$server_old"; do
    dpkg-deb --fsys-tarfile "$package" | tar -t | grep -v '/$' | sed 's/^\.//' \
        | grep -vE '^/usr/bin/|/man/|/doc/.*/(copyright|changelog.gz)|/lintian/' | while read -r file; do
        grep -qF -e "$file" -e " $(basename "$file")" -e "I $(basename "$file")" "$work/named" || { echo "$file"; }
    done
done >"$work/unnamed"
[[ ! -s $work/unnamed ]] || fail "not named in any manual: $(cat "$work/unnamed")"
ok "every installed file is named in a manual"

# --- the root

if [[ ! -e $base ]]; then
    note "making a Debian root, once"
    mkdir -p "$(dirname "$base")"
    mmdebstrap --quiet --variant=minbase --include=systemd,systemd-sysv,dbus,ca-certificates --mode=root bookworm "$base.new.tar.zst"
    mv "$base.new.tar.zst" "$base"
fi
mkdir "$root"
tar --zstd -xf "$base" -C "$root"
rm -f "$root"/etc/resolv.conf
echo pkg1 >"$root/etc/hostname"
mkdir "$root/debs"
cp "$debs"/*_amd64.deb "$root/debs/"
# Long enough for a server; too long for a test.
mkdir -p "$root/etc/systemd/system/hb.service.d"
printf '[Service]\nWatchdogSec=4\nRestartSec=1\n' >"$root/etc/systemd/system/hb.service.d/test.conf"

hb=target/x86_64-unknown-linux-musl/quick/hb
ip netns add "$net"
ip -n "$net" link set lo up
key=$("${hb%/hb}/hb-server" init --data "$work/data" 2>"$work/init.log")
ip netns exec "$net" "${hb%/hb}/hb-server" serve --data "$work/data" --listen 127.0.0.1:8600 2>"$work/server.log" &
server=$!
url=http://127.0.0.1:8600
wait_for 30 "the server" grep -q 'listening on' "$work/server.log"
tell tokens create --uses 1 --expires 1h >"$work/token" 2>/dev/null

# --- the life of a host

boot
find "$root" -xdev \( -path "$root/proc" -o -path "$root/run" -o -path "$root/tmp" -o -path "$root/var/log" \) -prune -o -print \
    | sort >"$work/before"
began=$(date +%s%N)
inside dpkg -i "/debs/$(basename "$agent_old")" >"$work/dpkg.log" 2>&1 || fail "$(cat "$work/dpkg.log")"
is_active hb.service inactive || fail "the service of a host that is not enrolled is not just inactive"
inside systemctl is-enabled --quiet hb.service || fail "the service is not enabled"
[[ $(inside systemctl --failed --no-legend | wc -l) == 0 ]] || fail "a unit failed"
ok "installed: enabled, inactive, nothing failed"

cp "$work/token" "$root/root/token"
inside env HB_TOKEN_FILE=/root/token HB_SERVER=$url hb register --interval 2s --grace 4s >"$work/register.log" 2>&1 \
    || fail "$(cat "$work/register.log")"
rm "$root/root/token"
wait_for 20 "the first beat" state up
ok "from dpkg -i to the first beat: $((($(date +%s%N) - began) / 1000000)) ms"

said=$(inside systemd-analyze verify --man=no hb.service 2>&1) || true
[[ -z $said ]] || fail "systemd-analyze verify says: $said"
for unit in hb hb-server; do
    systemd-analyze security --offline=true --threshold=12 "packaging/systemd/$unit.service" >/dev/null || fail "$unit.service is too open"
done
ok "the units verify, and expose at most 1.2"
inside sh -c 'set -e
    grep -q "CapEff:.0000000000000000" /proc/$0/status
    grep -q "NoNewPrivs:.1" /proc/$0/status
    grep -q "Seccomp:.2" /proc/$0/status
    [ "$(stat -c %U /proc/$0)" = _hb ]
    [ "$(stat -c %U:%a /etc/hb/host.key)" = root:600 ]
    [ "$(stat -c %U:%a /var/lib/hb)" = _hb:700 ]' "$(main_pid)" || fail "the agent is not confined"
ok "the agent runs as _hb, without capabilities, filtered; the key belongs to root"

mark
pid=$(main_pid)
inside sh -c "kill -9 $pid"
wait_for 30 "the killed agent to come back" since '[a-z_]+ agent_killed'
never 'rebooted .*'
ok "kill -9: restarted, and told as agent killed"

mark
pid=$(main_pid)
inside sh -c "kill -STOP $pid"
wait_for 40 "the watchdog" bash -c "[[ \$(nsenter -t $(leader) -a systemctl show -p MainPID --value hb.service) != $pid ]]"
wait_for 30 "the hung agent to come back" since '[a-z_]+ agent_killed'
inside journalctl --no-pager -u hb.service | grep -qi watchdog || fail "it was not the watchdog"
ok "SIGSTOP: the watchdog restarted it, and it is told as killed"

wait_for 20 "the host to be up" state up
mark
began=$(date +%s%N)
inside systemctl stop hb.service
took=$((($(date +%s%N) - began) / 1000000))
state stopped || fail "the goodbye of systemctl stop is not stored when it returns"
never 'down .*'
ok "systemctl stop: said goodbye, stored after $took ms"
((took <= 1500)) || fail "the goodbye took $took ms"
inside systemctl start hb.service
wait_for 20 "the return from the stop" since '[a-z_]+ agent_stopped'
wait_for 20 "the host to be up" state up
ok "and came back, told as agent stopped"

mark
former=$(leader)
inside systemctl reboot || true
wait_for 20 "the goodbye of a reboot" since 'stopped .*'
tell history pkg1 --json | grep -q 'reboot' || fail "the goodbye does not say reboot"
follow_reboot "$former"
wait_for 60 "the return from the reboot" since '[a-z_]+ rebooted'
never 'down .*'
ok "reboot: said goodbye, came back, told as rebooted, no alarm"

wait_for 20 "the host to be up" state up
mark
kill -9 "$(leader)"
wait "$container" 2>/dev/null || true
wait_for 30 "the alarm" since 'down .*'
boot
wait_for 60 "the return from the power cut" since '[a-z_]+ crashed'
ok "power cut: down, and told as crashed when it is back"

wait_for 20 "the host to be up" state up
mark
inside systemctl poweroff || true
wait "$container" 2>/dev/null || true
wait_for 10 "the goodbye of a poweroff" since 'stopped .*'
tell history pkg1 --json | grep -q 'poweroff' || fail "the goodbye does not say poweroff"
sleep 8
never 'down .*'
boot
wait_for 60 "the return from the poweroff" since '[a-z_]+ rebooted'
ok "poweroff: said goodbye, no alarm"

wait_for 20 "the host to be up" state up
mark
echo '# mine' >>"$root/etc/hb/agent.toml"
pid=$(main_pid)
inside dpkg -i "/debs/$(basename "$agent_new")" >"$work/dpkg.log" 2>&1 || fail "$(cat "$work/dpkg.log")"
[[ $(main_pid) != "$pid" && $(main_pid) != 0 ]] || fail "the upgrade did not restart the agent"
wait_for 20 "the host to be up after the upgrade" state up
sleep 7
never 'down .*'
grep -q '# mine' "$root/etc/hb/agent.toml" || fail "the upgrade lost the configuration"
ok "upgrade: agent restarted, no deadline missed, configuration kept"

if inside dpkg -i "/debs/$(basename "$agent_old")" >"$work/dpkg.log" 2>&1; then fail "the downgrade was not refused"; fi
grep -q 'hint: remove hb first' "$work/dpkg.log" || fail "the refusal gives no reason: $(cat "$work/dpkg.log")"
wait_for 20 "the host to be up after the refusal" state up
inside dpkg --audit | { ! grep .; } || fail "the refused downgrade left the package broken"
ok "downgrade: refused with a reason, agent still beats"

inside dpkg -i "/debs/$(basename "$agent_new")" >"$work/dpkg.log" 2>&1 || fail "$(cat "$work/dpkg.log")"
wait_for 20 "the host to be up after the reinstallation" state up
ok "reinstall"

mark
inside dpkg -r hb >"$work/dpkg.log" 2>&1 || fail "$(cat "$work/dpkg.log")"
wait_for 5 "the goodbye of the removal" state stopped
[[ -s $root/etc/hb/host.key && -s $root/etc/hb/enrolment.toml && -s $root/etc/hb/agent.toml ]] || fail "the removal took the key"
[[ ! -e $root/usr/bin/hb && ! -e $root/lib/systemd/system/hb.service ]] || fail "the removal left the program"
is_active hb.service active && fail "the removed service still runs"
inside dpkg -i "/debs/$(basename "$agent_old")" >"$work/dpkg.log" 2>&1 || fail "$(cat "$work/dpkg.log")"
wait_for 20 "the host to be up after it was installed again" state up
ok "remove: service gone, key and configuration stay, and an older version may follow"

inside dpkg -i "/debs/$(basename "$server_old")" >"$work/dpkg.log" 2>&1 || fail "$(cat "$work/dpkg.log")"
is_active hb-server.service inactive || fail "a server without a database is not just inactive"
printf 'listen = "127.0.0.1:8700"\n' >"$root/etc/hb/server.toml"
inside hb-server init >/dev/null 2>"$work/init.log" || fail "$(cat "$work/init.log")"
inside systemctl start hb-server.service || fail "the packaged server does not start"
is_active hb-server.service active || fail "the packaged server does not run"
said=$(inside systemd-analyze verify --man=no hb-server.service 2>&1) || true
[[ -z $said ]] || fail "systemd-analyze verify says: $said"
ok "hb-server: inactive until init, then serves as its own account"

inside dpkg -P hb-server hb >"$work/dpkg.log" 2>&1 || fail "$(cat "$work/dpkg.log")"
find "$root" -xdev \( -path "$root/proc" -o -path "$root/run" -o -path "$root/tmp" -o -path "$root/var/log" \) -prune -o -print \
    | sort >"$work/after"
left=$(comm -13 "$work/before" "$work/after" | sed "s|^$root||" \
    | grep -vE '^/etc/(passwd|group|shadow|gshadow)-?$|^/etc/\.pwd\.lock|^/var/lib/(systemd|private|dbus)|^/etc/machine-id|^/var/tmp/systemd' || true)
[[ -z $left ]] || fail "purging left behind: $left"
ok "purge: nothing is left"

note "$passed checks passed"
