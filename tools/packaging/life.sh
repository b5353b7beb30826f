#!/usr/bin/env bash
# The life of a host on a real systemd: installed, enrolled, killed, hung, stopped, rebooted, without power, upgraded, removed,
# purged; each seen rightly by an hb-server outside of it.
part=life
. "$(dirname "$0")/lib.sh"

mark() { marked=$(events pkg1 | wc -l); }
# since PATTERN: an event of this kind and cause came after the mark.
since() { events pkg1 | tail -n "+$((marked + 1))" | grep -qE "^$1$"; }
never() { ! since "$1" || fail "there should be no event $1"; }
is_up() { state pkg1 up; }
# at PATTERN: when the last event of this kind and cause was stored, in milliseconds of the epoch.
at() {
    tell history pkg1 --json | python3 -c 'import json, re, sys, datetime
found = [e["at"] for e in json.load(sys.stdin)["events"] if re.fullmatch(sys.argv[1], e["event"] + " " + (e.get("cause") or "-"))]
print(round(max(datetime.datetime.fromisoformat(re.sub(r"\.(\d+)Z", lambda m: "." + (m[1] + "000000")[:6] + "+00:00", f if "." in f else f.replace("Z", ".0Z"))).timestamp() for f in found) * 1000))' "$1"
}
# When the agent of now was started, in milliseconds of the epoch.
agent_start() {
    python3 -c 'import sys, time; print(round((time.time() - time.monotonic() + int(sys.argv[1]) / 1e6) * 1000))' \
        "$(inside systemctl show -p ExecMainStartTimestampMonotonic --value hb.service)"
}
# seen_within_one_interval BEGAN PATTERN: how long after the start of the machine, and of the agent, the server knew, in $took.
seen_within_one_interval() {
    local seen started
    seen=$(at "$2") started=$(agent_start)
    # Whoever calls this has switched off that a failure ends the test.
    [[ $seen =~ ^[0-9]+$ && $started =~ ^[0-9]+$ ]] || fail "there is no time of $2: $seen, nor of the agent's start: $started"
    took="seen $((seen - $1)) ms after the machine began to boot, $((seen - started)) ms after the agent's start"
    ((seen - started <= interval_ms))
}
# The best of three: the other parts keep the disk busy, on which the agent writes its journal before it beats.
# within_one_interval WAY: a way to boot, that ends with seen_within_one_interval.
within_one_interval() {
    for try in 1 2 3; do
        wait_for 20 "the host to be up" is_up
        mark
        ! "$1" || return 0
        note "$1: $took; once more"
    done
    fail "$1: three times the boot was seen too late: $took"
}
# All files, but those that no package made.
files() {
    (cd "$root" && find . -xdev \( -path ./proc -o -path ./run -o -path ./tmp -o -path ./var/log \) -prune -o -print | sort)
}

interval_ms=2000
new_root pkg1
# Long enough for a server; too long for a test.
mkdir -p "$root/etc/systemd/system/hb.service.d"
printf '[Service]\nWatchdogSec=4\nRestartSec=1\n' >"$root/etc/systemd/system/hb.service.d/test.conf"
new_net
# More than a host may send: beats are asked for below.
beats_per_interval=1000
new_server tls
# As a server with a certificate of a known authority: among those of the system, without a pin.
cp "$work/data/cert.pem" "$root/usr/local/share/ca-certificates/hb-test.crt"
must chroot "$root" update-ca-certificates
tell tokens create --uses 4 --expires 1h >"$work/token" 2>/dev/null

boot
files >"$work/before"

# enrol NAME: from the package to the server's list, in $took.
enrol() {
    must inside dpkg -i "/debs/$(basename "$agent_old")"
    cp "$work/token" "$root/root/token"
    must inside env HB_TOKEN_FILE=/root/token HB_SERVER=$url hb register --name "$1" --interval 2s --grace 4s
    rm "$root/root/token"
    wait_for 20 "the first beat" state "$1" up
}
# The best of three: the machine that runs the tests may be busy with something else.
for try in 1 2 3; do
    began=$(now_ms)
    enrol "try$try"
    took=$(($(now_ms) - began))
    must inside dpkg -P hb
    ((took > 5000)) || break
    note "from dpkg -i to the first accepted beat: $took ms; once more"
done
((took <= 5000)) || fail "from dpkg -i to the first beat took $took ms"
ok "from dpkg -i to the first accepted beat: $took ms, at most 5000"

must inside dpkg -i "/debs/$(basename "$agent_old")"
is_active hb.service inactive || fail "the service of a host that is not enrolled is not just inactive"
inside systemctl is-enabled --quiet hb.service || fail "the service is not enabled"
[[ $(inside systemctl --failed --no-legend | wc -l) == 0 ]] || fail "a unit failed"
ok "installed: enabled, inactive, nothing failed"
enrol pkg1
ok "installed again over itself, and enrolled"

said=$(inside systemd-analyze verify --man=no hb.service 2>&1) || true
[[ -z $said ]] || fail "systemd-analyze verify says: $said"
ok "systemd-analyze verify says nothing about hb.service"
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
another_pid() { local now; now=$(main_pid); [[ $now != 0 && $now != "$pid" ]]; }
wait_for 40 "the watchdog" another_pid
wait_for 30 "the hung agent to come back" since '[a-z_]+ agent_killed'
inside journalctl --no-pager -u hb.service | grep -i watchdog >/dev/null || fail "it was not the watchdog"
ok "SIGSTOP: the watchdog restarted it, and it is told as killed"

wait_for 20 "the host to be up" is_up
mark
pid=$(main_pid)
began=$(now_ms)
inside sh -c "kill -TERM $pid"
wait_for 10 "the goodbye" since 'stopped .*'
took=$(($(at 'stopped .*') - began))
((took <= 1000)) || fail "from SIGTERM to the stored goodbye took $took ms"
ok "from SIGTERM to the stored goodbye: $took ms, at most 1000"
wait_for 20 "the return from the stop" since '[a-z_]+ agent_stopped'

wait_for 20 "the host to be up" is_up
mark
inside systemctl stop hb.service
state pkg1 stopped || fail "the goodbye of systemctl stop is not stored when it returns"
never 'down .*'
inside systemctl start hb.service
wait_for 20 "the return from the stop" since '[a-z_]+ agent_stopped'
wait_for 20 "the host to be up" is_up
ok "systemctl stop and start: said goodbye, stored when it returns; came back, told as agent stopped"

mark
must inside hb maint 20m kernel
since 'maintenance .*' || fail "the maintenance is not stored when the command returns"
must inside hb maint end
key() { inside hb identity show --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["key"])'; }
former=$(key)
must inside hb identity rotate
[[ $(key) != "$former" ]] || fail "the key is the one from before"
wait_for 20 "the first beat with the new key" since 'key_rotated .*'
never 'down .*'
never 'cloned .*'
ok "hb maint and hb identity rotate go through the running service, which then beats with the new key"
wait_for 20 "the host to be up" is_up

mark
must inside /lib/systemd/system-sleep/hb pre suspend
state pkg1 stopped || fail "the goodbye of the sleep is not stored when the hook returns"
tell history pkg1 --json | grep 'sleep' >/dev/null || fail "the goodbye does not say sleep"
# Longer than interval and grace: nothing sleeps here, and the agent holds its beats all the same.
sleep 8
state pkg1 stopped || fail "a beat came after the goodbye of the sleep"
never 'down .*'
must inside /lib/systemd/system-sleep/hb post suspend
wait_for 40 "the host to be up after the sleep" is_up
ok "sleep: the hook of systemd says goodbye, the agent holds its beats, and comes back by itself"

# As it was installed, in its sandbox, with TLS and the authorities of the system. The unoptimised agent of the quick test is larger.
must inside sh -c 'for i in $(seq 200); do hb beat -q || exit; done'
memory() { inside sed -n "s/^$1:[^0-9]*\\([0-9]*\\).*/\\1/p" "/proc/$(main_pid)/status"; }
resident=$(memory VmRSS) anonymous=$(memory RssAnon) threads=$(memory Threads)
[[ $PKG_PROFILE != release ]] || ((resident <= 4096 && anonymous <= 900)) || fail "the agent takes $resident KiB, $anonymous of its own"
((threads == 1)) || fail "the agent has $threads threads"
ok "the installed agent, after 200 beats over TLS, takes $resident KiB, of it $anonymous of its own, and one thread ($PKG_PROFILE)"

must inside dpkg -i "/debs/$(basename "$server_old")"
is_active hb-server.service inactive || fail "a server without a database is not just inactive"
printf 'listen = "127.0.0.1:8700"\n' >"$root/etc/hb/server.toml"
inside hb-server init >/dev/null 2>"$work/init.log" || fail "$(cat "$work/init.log")"
must inside systemctl start hb-server.service
is_active hb-server.service active || fail "the packaged server does not run"
said=$(inside systemd-analyze verify --man=no hb-server.service 2>&1) || true
[[ -z $said ]] || fail "systemd-analyze verify says: $said"
[[ $(inside stat -c %U "/proc/$(main_pid hb-server.service)") == _hb-server ]] || fail "the server runs as another account"
server_reloads
ok "hb-server: inactive until init, then serves as its own account, and reloads; its unit verifies"
must inside hb-server backup --to /root/hb.db
must inside systemctl stop hb-server.service
must inside hb-server restore --from /root/hb.db
must inside systemctl start hb-server.service
is_active hb-server.service active || fail "the server does not run with the database that root restored"
must inside rm /root/hb.db
ok "hb-server: root restores a backup, and the service's account can use it"
pid=$(main_pid hb-server.service)
must inside dpkg -i "/debs/$(basename "$server_new")"
[[ $(main_pid hb-server.service) != "$pid" ]] || fail "the upgrade did not restart the server"
is_active hb-server.service active || fail "the upgraded server does not run"
if inside dpkg -i "/debs/$(basename "$server_old")" >"$work/dpkg.log" 2>&1; then fail "the server's downgrade was not refused"; fi
grep -q 'hint: remove hb-server first' "$work/dpkg.log" || fail "the refusal gives no reason: $(cat "$work/dpkg.log")"
ok "hb-server: upgrade restarts it, downgrade refused with a reason"

reboots() {
    former=$(leader)
    inside systemctl reboot || true
    wait_for 20 "the goodbye of a reboot" since 'stopped .*'
    tell history pkg1 --json | grep 'reboot' >/dev/null || fail "the goodbye does not say reboot"
    wait_for 60 "the container to go down" is_gone "$former"
    began=$(now_ms)
    follow_reboot "$former"
    wait_for 60 "the return from the reboot" since '[a-z_]+ rebooted'
    never 'down .*'
    seen_within_one_interval "$began" '[a-z_]+ rebooted'
}
# A wait for the network that never ends, as one for a cable that is not plugged in: no boot may hang on it because of hb.
printf '[Unit]\nBefore=network-online.target\n[Service]\nType=oneshot\nTimeoutStartSec=infinity\nExecStart=/bin/sleep infinity\n' \
    >"$root/etc/systemd/system/endless-wait.service"
mkdir -p "$root/etc/systemd/system/network-online.target.wants"
ln -sf ../endless-wait.service "$root/etc/systemd/system/network-online.target.wants/"
within_one_interval reboots
is_active hb-server.service active || fail "the server does not run after the boot"
[[ $(inside systemctl list-jobs --no-legend | grep -c -e endless-wait -e hb.service -e hb-server.service) == 0 ]] \
    || fail "the boot hangs on the network because of hb"
rm "$root/etc/systemd/system/endless-wait.service" "$root/etc/systemd/system/network-online.target.wants/endless-wait.service"
ok "reboot: said goodbye, came back, told as rebooted, no alarm, though a wait for the network never ends and hb-server starts, too; $took"

loses_power() {
    cut_power
    wait_for 30 "the alarm" since 'down .*'
    began=$(now_ms)
    boot
    wait_for 60 "the return from the power cut" since '[a-z_]+ crashed'
    seen_within_one_interval "$began" '[a-z_]+ crashed'
}
within_one_interval loses_power
ok "power cut: down, and told as crashed when it is back; $took"

wait_for 20 "the host to be up" is_up
mark
inside systemctl poweroff || true
wait "$container" 2>/dev/null || true
container=''
wait_for 10 "the goodbye of a poweroff" since 'stopped .*'
tell history pkg1 --json | grep 'poweroff' >/dev/null || fail "the goodbye does not say poweroff"
# Longer than interval and grace.
sleep 8
never 'down .*'
boot
wait_for 60 "the return from the poweroff" since '[a-z_]+ rebooted'
ok "poweroff: said goodbye, no alarm, told as rebooted when it is back"

wait_for 20 "the host to be up" is_up
mark
echo '# mine' >>"$root/etc/hb/agent.toml"
pid=$(main_pid)
must inside dpkg -i "/debs/$(basename "$agent_new")"
[[ $(main_pid) != "$pid" && $(main_pid) != 0 ]] || fail "the upgrade did not restart the agent"
wait_for 20 "the host to be up after the upgrade" is_up
sleep 7
never 'down .*'
since '[a-z_]+ agent_upgraded' || fail "the upgrade is not told as one"
tell history pkg1 --json | grep '"upgrade"' >/dev/null || fail "the goodbye does not say upgrade"
grep -q '# mine' "$root/etc/hb/agent.toml" || fail "the upgrade lost the configuration"
ok "upgrade: agent restarted, said goodbye for it, told as upgraded, no deadline missed, configuration kept"

if inside dpkg -i "/debs/$(basename "$agent_old")" >"$work/dpkg.log" 2>&1; then fail "the downgrade was not refused"; fi
grep -q 'hint: remove hb first' "$work/dpkg.log" || fail "the refusal gives no reason: $(cat "$work/dpkg.log")"
wait_for 20 "the host to be up after the refusal" is_up
[[ -z $(inside dpkg --audit) ]] || fail "the refused downgrade left the package broken"
ok "downgrade: refused with a reason, agent still beats"

must inside dpkg -i "/debs/$(basename "$agent_new")"
wait_for 20 "the host to be up after the reinstallation" is_up
ok "reinstall"

must inside dpkg -r hb
wait_for 5 "the goodbye of the removal" state pkg1 stopped
[[ -s $root/etc/hb/host.key && -s $root/etc/hb/enrolment.toml && -s $root/etc/hb/agent.toml ]] || fail "the removal took the key"
[[ ! -e $root/usr/bin/hb && ! -e $root/lib/systemd/system/hb.service ]] || fail "the removal left the program"
! is_active hb.service active || fail "the removed service still runs"
must inside dpkg -i "/debs/$(basename "$agent_old")"
wait_for 20 "the host to be up after it was installed again" is_up
ok "remove: service gone, key and configuration stay, and an older version may follow"

wait_for 20 "the host to be up" is_up
must inside hb image-prep --yes
state pkg1 stopped || fail "the goodbye of the machine whose image is taken is not stored"
is_active hb.service inactive || fail "the service of a machine without a key is not just inactive"
left=$(cd "$root" && find etc/hb var/lib/hb -name 'host.key*' -o -name enrolment.toml -o -name journal)
[[ -z $left ]] || fail "the image would hold $left"
# Two copies, one after the other.
for copy in copy1 copy2; do
    tell tokens create --uses 1 --expires 1h >"$root/root/token" 2>/dev/null
    must inside env HB_TOKEN_FILE=/root/token HB_SERVER=$url hb register --name "$copy" --interval 2s --grace 4s
    wait_for 20 "the copy to be a host of its own" state "$copy" up
    must inside hb identity reset --yes
    state "$copy" stopped || fail "the goodbye of $copy is not stored"
done
rm "$root/root/token"
! tell history --json | grep -q '"cloned"' || fail "a copy is told as cloned"
ok "hb image-prep and hb identity reset: the service says goodbye and stops, no key is left; each copy is a host of its own"

must inside dpkg -P hb-server hb
files >"$work/after"
left=$(comm -13 "$work/before" "$work/after" \
    | grep -vE '^\./etc/(passwd|group|shadow|gshadow)-?$|^\./etc/\.pwd\.lock|^\./var/lib/(systemd|private|dbus)|^\./etc/machine-id|^\./var/tmp/systemd' || true)
[[ -z $left ]] || fail "purging left behind: $left"
ok "purge: nothing is left"

# From here on as the README says, in its own words, on a system that never had hb: the server, an operator's login, the first host.
# readme PATTERN: the command that begins so, as root types it.
readme() {
    local line
    line=$(grep -m1 -E "^(sudo )?$1" README.md) || fail "the README does not say: $1"
    sed -E "s/^sudo //; s/ +# .*//; s/sha256:…/${fingerprint:-}/" <<<"$line"
}
type_it() { must inside sh -c "cd /root; $(readme "$@")"; }
must inside dpkg -i "/debs/$(basename "$agent_new")" "/debs/$(basename "$server_new")"
echo '127.0.0.1 hb.example.org' >>"$root/etc/hosts"
inside sh -c "$(readme 'hb-server init')" >"$root/root/admin.key" 2>"$work/init.log" || fail "$(cat "$work/init.log")"
fingerprint=$(grep -oE 'sha256:[0-9a-f]+' "$work/init.log" | head -n 1)
awk '/^```toml$/ {on = 1; next} /^```$/ && on {exit} on' README.md >"$work/settings"
[[ $(wc -l <"$work/settings") == 2 ]] || fail "the README sets: $(cat "$work/settings")"
sed -i "1r $work/settings" "$root/etc/hb/server.toml"
type_it 'systemctl enable --now hb-server'
is_active hb-server.service active || fail "the server of the README does not run"
must inside sh -c "$(readme 'hb login https://hb.example.org') --key-file /root/admin.key"
type_it '\(umask 077; hb tokens create'
type_it 'hb register --server'
here_up() { inside hb status --json | grep -E '"state": *"up"'; }
wait_for 20 "the host of the README to be up" here_up
must inside hb doctor
ok "the README's way, word by word: server, login, token, first host; it is up, and hb doctor finds nothing"
