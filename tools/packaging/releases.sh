#!/usr/bin/env bash
# One file for any Debian: the same packages on the releases before and after the one of the other parts, each booted with its own
# systemd. Their roots are made once, from the network.
part=releases
. "$(dirname "$0")/lib.sh"

# make_base RELEASE: its root, in $base.
make_base() {
    base=.cache/root/$1.tar.zst
    [[ ! -e $base ]] || return 0
    note "making a root of $1, once"
    must mmdebstrap --quiet --variant=minbase --mode=root --include=systemd,systemd-sysv,dbus,ca-certificates \
        "$1" "$work/$1.tar.zst"
    mv "$work/$1.tar.zst" "$base"
}

new_net
new_server
for release in bullseye trixie; do
    make_base "$release"
    new_root "$release"
    boot
    must inside dpkg -i "/debs/$(basename "$agent_old")" "/debs/$(basename "$server_old")"
    [[ $(inside systemctl --failed --no-legend | wc -l) == 0 ]] || fail "$release: a unit failed: $(inside systemctl --failed)"
    systemd=$(inside systemctl --version | sed -n '1s/^systemd \([^ ]*\).*/\1/p')
    ok "$release, systemd $systemd: both packages install, nothing failed"

    tell tokens create --uses 1 --expires 1h >"$root/root/token" 2>/dev/null
    must inside env HB_TOKEN_FILE=/root/token HB_SERVER=$url hb register --name "$release" --interval 2s --grace 4s
    wait_for 20 "the first beat" state "$release" up
    [[ $(inside stat -c %U "/proc/$(main_pid)") == _hb ]] || fail "$release: the agent is not _hb"
    # Not by systemctl: systemd 247 knows no group to kill on a new kernel.
    must inside sh -c "kill -KILL $(main_pid)"
    has_event() { events "$release" | grep -qx "$1"; }
    wait_for 30 "the return of the killed agent" has_event 'restarted agent_killed'
    must inside systemctl stop hb.service
    wait_for 20 "the goodbye" state "$release" stopped
    ok "$release: the agent beats as _hb, comes back when it is killed, says goodbye"

    # On a system with nothing that is not essential: no procps, whose kill the unit may not need.
    inside hb-server init --data /var/lib/hb-server >/dev/null 2>&1 || fail "$release: hb-server init"
    printf 'listen = "127.0.0.1:8700"\n' >"$root/etc/hb/server.toml"
    must inside systemctl start hb-server.service
    [[ ! -e $root/bin/kill ]] || fail "$release: the root has more than it should"
    server_reloads
    ok "$release: hb-server makes its database, runs, and reloads"
    must inside dpkg -P hb hb-server
    [[ ! -e $root/etc/hb && ! -e $root/var/lib/hb && ! -e $root/var/lib/hb-server ]] || fail "$release: purging left something behind"
    ok "$release: purged, nothing is left"
    cut_power
    rm -rf --one-file-system "$root"
done
