#!/usr/bin/env bash
# What can be said of the packages without installing them: lintian, manuals, units.
part=static
. "$(dirname "$0")/lib.sh"

# Words found in machine code are no spelling. Overrides are shown by their reasons in packaging/debian.
said=$(lintian --allow-root --pedantic --display-info --display-experimental --suppress-tags spelling-error-in-binary \
    --fail-on error,warning,info,pedantic,experimental "$agent_old" "$server_old" 2>&1 | grep -v 'running with root privileges') || true
[[ -z $said ]] || fail "lintian says: $said"
ok "lintian says nothing at its strictest"
for file in packaging/debian/*.lintian-overrides; do
    awk '/^#/ {why = 1; next} {if (!why) {print FILENAME ": no reason for: " $0; bad = 1} why = 0} END {exit bad}' "$file" \
        || fail "an override without a reason"
done
ok "every override of lintian has its reason"

mkdir "$work/agent" "$work/server"
dpkg-deb --extract "$agent_old" "$work/agent"
dpkg-deb --extract "$server_old" "$work/server"
for page in "$work"/{agent,server}/usr/share/man/man*/*.gz; do
    said=$(gzip -dc "$page" | LC_ALL=C.UTF-8 MANROFFSEQ='' MANWIDTH=100 man --warnings -E UTF-8 -l -Tutf8 -Z - 2>&1 >/dev/null) || true
    [[ -z $said ]] || fail "$(basename "$page"): $said"
done
ok "the manual pages are without errors: $(find "$work" -name '*.gz' -path '*/man/*' | wc -l)"

# Every file that a package installs is named in its manual or stands where manuals and papers stand.
gzip -dc "$work/agent/usr/share/man/man5/agent.toml.5.gz" "$work/server/usr/share/man/man5/server.toml.5.gz" \
    | sed 's/\\//g' >"$work/named"
(cd "$work" && find agent server -type f -printf '/%P\n') \
    | grep -vE '^/usr/bin/|/man/|/doc/.*/(copyright|changelog.gz)' | sort -u | while read -r file; do
    grep -qxF ".I $file" "$work/named" || echo "$file"
done >"$work/unnamed"
[[ ! -s $work/unnamed ]] || fail "not named in any manual: $(cat "$work/unnamed")"
ok "every installed file is named in a manual"

# Whose work is in the programs: theirs, and the C library that they are linked with.
for program in agent/usr/share/doc/hb server/usr/share/doc/hb-server; do
    gzip -dc "$work/$program/NOTICES.gz" >"$work/notices"
    for other in 'ring [0-9.]*: ' 'tokio [0-9.]*: ' 'musl libc: ' "Rust's standard library: " 'Copyright (c) Tokio Contributors'; do
        grep -q "^$other" "$work/notices" || fail "the notices in $program do not have: $other"
    done
    ! grep -E '^hb(-[a-z]+)? ' "$work/notices" || fail "the notices in $program name our own crates"
done
ok "the packages have the notices of what they contain"

# The score in tenths. The agent's bar is 1.2; the server's stands in the README.
exposure() { systemd-analyze security --offline=true --no-pager "$1" | sed -n 's/.*Overall exposure level for .*: \([0-9]*\)\.\([0-9]\).*/\1\2/p'; }
for package in agent server; do
    unit=$(echo "$work/$package"/lib/systemd/system/*.service)
    score=$((10#$(exposure "$unit")))
    ((score <= 12)) || fail "$(basename "$unit") is too open: $score tenths"
    ok "$(basename "$unit") exposes ${score::-1}.${score: -1}, at most 1.2"
done

# The manuals that a unit names are in its package. (`systemd-analyze verify` is run where the unit is installed.)
for package in agent server; do
    sed -n 's/^Documentation=//p' "$work/$package"/lib/systemd/system/*.service | tr ' ' '\n' | while read -r page; do
        [[ $page =~ ^man:(.+)\((.)\)$ && -e $work/$package/usr/share/man/man${BASH_REMATCH[2]}/${BASH_REMATCH[1]}.${BASH_REMATCH[2]}.gz ]] \
            || fail "the unit of $package names $page, which is not in its package"
    done
done
ok "the units name manuals that are there"

# What debhelper's own snippets do, no script of ours does again.
said=$(cd packaging/debian && grep -nE 'systemctl|deb-systemd|systemd-sysusers|systemd-tmpfiles|adduser|useradd|update-rc\.d|invoke-rc\.d' \
    ./*.preinst ./*.postinst ./*.prerm ./*.postrm 2>/dev/null) || true
[[ -z $said ]] || fail "debhelper does this already: $said"
ok "the maintainer scripts do nothing that debhelper does"

note "hb: $(stat -c %s "$agent_old") bytes, hb-server: $(stat -c %s "$server_old") bytes (${PKG_PROFILE:?})"
if [[ $PKG_PROFILE == release ]]; then
    (($(stat -c %s "$agent_old") <= 2000000)) || fail "the package hb is larger than 2 MB"
    ok "the package hb is at most 2 MB"
fi
