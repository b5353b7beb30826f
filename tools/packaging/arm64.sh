#!/usr/bin/env bash
# The packages for arm64: lintian, the same files as those for amd64, static programs; and their agent on an emulated processor
# enrols and beats to their server on another.
part=arm64
. "$(dirname "$0")/lib.sh"

said=$(lintian --allow-root --pedantic --display-info --display-experimental --suppress-tags spelling-error-in-binary \
    --fail-on error,warning,info,pedantic,experimental "$debs"/hb{,-server}_"${old}"_arm64.deb 2>&1 | grep -v 'running with root privileges') || true
[[ -z $said ]] || fail "lintian says: $said"
ok "lintian says nothing at its strictest"

names() { dpkg-deb --contents "$1" | awk '{print $1, $2, $6, $7, $8}'; }
for package in hb hb-server; do
    diff <(names "$debs/${package}_${old}_amd64.deb") <(names "$debs/${package}_${old}_arm64.deb") >"$work/diff" \
        || fail "$package for arm64 has other files: $(cat "$work/diff")"
    dpkg-deb --extract "$debs/${package}_${old}_arm64.deb" "$work/files"
    program=$work/files/usr/bin/$package
    readelf --file-header "$program" | grep -q 'Machine: *AArch64' || fail "$package is not for arm64"
    ! readelf --program-headers "$program" | grep INTERP || fail "$package wants a linker"
done
ok "the same files as for amd64; the programs are for arm64, and static"

# The server of the part is the emulated one.
emulate=(qemu-aarch64-static)
mkdir "$work/programs"
for program in hb hb-server; do
    printf '#!/bin/sh\nexec %s %s "$@"\n' "${emulate[*]}" "$work/files/usr/bin/$program" >"$work/programs/$program"
    chmod 755 "$work/programs/$program"
done
programs=$work/programs
new_net
new_server
tell tokens create --uses 1 --expires 1h >"$work/token" 2>/dev/null
host() { ip netns exec "$net" env HB_SERVER="$url" HB_STATE_DIR="$work/state" "$programs/hb" "$@"; }
must host register --name arm1 --token-file "$work/token" --interval 2s --grace 8s
must host beat
state arm1 up || fail "the beat is not stored"
ip netns exec "$net" env HB_STATE_DIR="$work/state" "$programs/hb" agent 2>"$work/agent.log" &
agent=$!
children+=("$agent")
# Longer than interval and grace of one beat.
sleep 12
state arm1 up || fail "the agent does not beat: $(cat "$work/agent.log")"
kill "$agent"
wait "$agent" || fail "the agent ends with $?: $(cat "$work/agent.log")"
state arm1 stopped || fail "the goodbye is not stored"
ok "the agent enrols, beats and says goodbye; the server stores it"
note "hb: $(stat -c %s "$debs/hb_${old}_arm64.deb") bytes, hb-server: $(stat -c %s "$debs/hb-server_${old}_arm64.deb") bytes"
