#!/usr/bin/env bash
# piuparts, without any network: installs, upgrades and purges both packages in a Debian root, and compares what is left.
part=piuparts
. "$(dirname "$0")/lib.sh"

# The mirror is a folder with the old packages: what the upgrade begins with.
mkdir "$work/mirror" "$work/tmp"
cp "$agent_old" "$server_old" "$work/mirror/"
(cd "$work/mirror" && mkdir -p dists/bookworm/main/binary-amd64 \
    && apt-ftparchive -qq packages . >dists/bookworm/main/binary-amd64/Packages \
    && apt-ftparchive -qq -o APT::FTPArchive::Release::Codename=bookworm -o APT::FTPArchive::Release::Components=main \
        -o APT::FTPArchive::Release::Architectures=amd64 release dists/bookworm >"$work/Release" \
    && mv "$work/Release" dists/bookworm/Release)
new_root base
# What piuparts would copy from this machine, and what a booted root has had all along.
echo '# none' >"$root/etc/resolv.conf"
rm -rf "$root/debs" "$root/etc/cloud/cloud-init.disabled" "$root"/etc/apt/sources.list.d/* "$root"/root/*.deb
printf 'Acquire::AllowInsecureRepositories "true";\nAPT::Get::AllowUnauthenticated "true";\n' >"$root/etc/apt/apt.conf.d/99unsigned"
tar -C "$root" -czf "$work/base.tar.gz" --one-file-system .
rm -rf --one-file-system "$root"

for pair in "hb $agent_new" "hb-server $server_new"; do
    package=${pair%% *} deb=${pair#* }
    code=0
    unshare --net piuparts --basetgz="$work/base.tar.gz" --distribution=bookworm --tmpdir="$work/tmp" --do-not-verify-signatures \
        --mirror="file:$work/mirror main" --bindmount="$work/mirror" --no-eatmydata --fail-on-broken-symlinks \
        "$deb" >"$work/$package.log" 2>&1 || code=$?
    ((code == 0)) || fail "piuparts fails for $package: $(grep -A12 -E 'ERROR|FAIL|WARN' "$work/$package.log" | tail -n 40)"
    grep -q 'PASS: All tests' "$work/$package.log" || fail "piuparts passed nothing for $package"
    grep -q 'PASS: Installation, upgrade and purging tests' "$work/$package.log" \
        || fail "piuparts upgraded nothing: $(grep PASS "$work/$package.log")"
    ok "piuparts: $package installs, upgrades from $old, and purges without a trace"
done
