# What the parts of the packaging test share: roots, containers, a network, a server. Sourced, as root, by each part after
# it has set `part`. Everything is made in $work and in namespaces, and removed when the part ends, however it ends.
set -Eeuo pipefail
exec 3>&1
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
[[ $(id -u) == 0 ]] || { echo "packaging: $part needs root" >&2; exit 1; }

debs=${PKG_DEBS:?the folder with the packages} old=${PKG_OLD:?} new=${PKG_NEW:?} programs=${PKG_PROGRAMS:?}
base=.cache/root/bookworm.tar.zst
hb=$programs/hb
work=${PKG_WORK:-/tmp/hb-packaging.$$}/$part
mkdir -p "$work"
container='' root='' children=()
net=hb${part:0:4}$$
agent_old=$debs/hb_${old}_amd64.deb agent_new=$debs/hb_${new}_amd64.deb
server_old=$debs/hb-server_${old}_amd64.deb server_new=$debs/hb-server_${new}_amd64.deb

note() { printf 'packaging: %s: %s\n' "$part" "$*"; }
ok() { note "ok: $*"; }
fail() {
    trap - ERR
    note "FAILED: $*"
    set +e
    if [[ -n ${url:-} ]]; then
        echo "--- events"
        tell history --json 2>/dev/null | python3 -c 'import json,sys
for e in json.load(sys.stdin)["events"]: print(e["at"], e["event"], e.get("cause"), e.get("message"))'
        echo "--- the server"
        tail -n 10 "$work/server.log"
    fi
    if [[ -n $container ]]; then
        echo "--- the journal of the container"
        journalctl --directory="$root/var/log/journal" --no-pager -n 400 -o short-precise 2>/dev/null \
            | grep -E "hb|fail|cloud-init" | tail -n 60
        tail -n 5 "$work/console"
    fi
    exit 1
} >&3 2>&1
# A command that fails where nothing was expected of it fails the part, and is named.
trap 'fail "line $LINENO: $BASH_COMMAND"' ERR

finish() {
    local code=$? child
    trap - ERR
    set +e
    if [[ -n $container ]]; then
        child=$(leader)
        [[ -z $child ]] || kill -9 "$child"
        kill "$container"
        wait "$container"
    fi
    for child in "${children[@]}"; do pkill -9 -P "$child"; kill -9 "$child"; wait "$child"; done
    ip netns del "$net"
    rm -rf --one-file-system "$work"
    [[ -n ${PKG_WORK:-} ]] || rmdir "/tmp/hb-packaging.$$"
    exit "$code"
} 2>/dev/null
trap finish EXIT
trap 'exit 130' INT TERM

# wait_for SECONDS WHAT COMMAND…
wait_for() {
    local until=$(($(date +%s%N) + $1 * 1000000000)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        (($(date +%s%N) < until)) || fail "waited in vain for: $what"
        sleep 0.1
    done
}
now_ms() { echo $(($(date +%s%N) / 1000000)); }
# must LOG COMMAND…: fails the part with all that the command said.
must() {
    local log=$work/said
    "$@" >"$log" 2>&1 || fail "$* says: $(cat "$log")"
}

# --- roots and containers

# new_root NAME: a fresh Debian, in $root.
new_root() {
    root=$work/$1
    mkdir "$root"
    tar --zstd -xf "$base" -C "$root"
    rm -f "$root/etc/resolv.conf"
    echo "$1" >"$root/etc/hostname"
    mkdir "$root/debs"
    cp "$debs"/*_amd64.deb "$root/debs/"
    # Only the test of cloud-init wants it.
    [[ ! -d $root/etc/cloud ]] || touch "$root/etc/cloud/cloud-init.disabled"
}
# within COMMAND…: in the root, not booted, on the part's network if it has one.
within() {
    local network=(--private-network)
    [[ ! -e /run/netns/$net ]] || network=(--network-namespace-path="/run/netns/$net")
    systemd-nspawn --quiet --pipe --directory="$root" --register=no --keep-unit --machine="hb-$part-$$" "${network[@]}" \
        --resolv-conf=off --timezone=off --setenv=DEBIAN_FRONTEND=noninteractive "$@" </dev/null
}
# Waits for the first process of the container, by the id of nspawn's child.
leader() { pgrep -P "$container" -x systemd | head -n 1; }
inside() { nsenter --target "$(leader)" --all env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 "$@"; }
is_booted() { [[ $(inside systemctl is-system-running || true) =~ ^(running|degraded)$ ]]; }
# boot [OPTION…]: the root, on the part's network.
boot() {
    systemd-nspawn --quiet --boot --directory="$root" --register=no --keep-unit --machine="hb-$part-$$" \
        --network-namespace-path="/run/netns/$net" --link-journal=no --resolv-conf=off --timezone=off \
        --console=pipe "$@" </dev/null >>"$work/console" 2>&1 &
    container=$!
    wait_for "${boot_s:-60}" "the container to boot" is_booted
}
# The power goes: every process of the container ends at once.
cut_power() {
    kill -9 "$(leader)"
    wait "$container" 2>/dev/null || true
    container=''
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
# The packaged server reads its configuration again when it is told to.
server_reloads() {
    must inside systemctl reload hb-server.service
    has_read() { inside journalctl --no-pager -u hb-server.service | grep 'the configuration was read again'; }
    wait_for 10 "the configuration to be read again" has_read
}
main_pid() { inside systemctl show -p MainPID --value "${1:-hb.service}"; }
is_active() { [[ $(inside systemctl is-active "$1" || true) == "$2" ]]; }

# --- a network with nothing in it but loopback, and a server there

new_net() {
    ip netns add "$net"
    ip -n "$net" link set lo up
}
url='' listen='' pin='' beats_per_interval=10
# new_server [tls]: speaks plain http, or TLS with the certificate that it makes, which $pin names.
new_server() {
    url=http://127.0.0.1:8600 listen=127.0.0.1:8600
    key=$("$programs/hb-server" init --data "$work/data" 2>"$work/init.log")
    if [[ ${1:-} == tls ]]; then
        url=https://127.0.0.1:8600 listen=0.0.0.0:8600
        pin=$(grep -oE 'sha256:[0-9a-f]+' "$work/init.log" | head -n 1)
    fi
    start_server
}
start_server() {
    ip netns exec "$net" env HB_SERVER_PUBLIC_URL="$url" HB_SERVER_BEATS_PER_INTERVAL="$beats_per_interval" \
        "$programs/hb-server" serve --data "$work/data" --listen "$listen" 2>"$work/server.log" &
    server=$!
    children+=("$server")
    wait_for 30 "the server" grep -q 'listening on' "$work/server.log"
}
stop_server() {
    kill "$server"
    wait "$server" || true
}
tell() { ip netns exec "$net" env HB_SERVER="$url" ${pin:+HB_PIN="$pin"} HB_API_KEY="$key" XDG_CONFIG_HOME="$work" "$hb" "$@"; }
# state HOST STATE: the server sees the host so.
state() { tell status "$1" --json 2>/dev/null | grep -qE "\"state\": *\"$2\""; }
# events HOST: kind and cause, one a line.
events() { tell history "$1" --json | python3 -c 'import json,sys
for e in json.load(sys.stdin)["events"]: print(e["event"], e.get("cause") or "-")'; }
