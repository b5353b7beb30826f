#!/usr/bin/env bash
# The signed repository: made with a throw-away key, used by apt in a Debian root, refused when somebody tampered with it.
part=apt
. "$(dirname "$0")/lib.sh"

# A short path: gpg's agent listens on a socket there.
export GNUPGHOME=$work/gpg
mkdir -m 700 "$GNUPGHOME"
end_agents() { gpgconf --kill all 2>/dev/null || true; }
trap 'code=$?; end_agents; (exit $code); finish' EXIT
in_the_past() { faketime -f '-10d' "$@"; }
must in_the_past gpg --batch --quiet --passphrase '' --quick-generate-key 'archive <archive@hb.invalid>' ed25519 sign never
must in_the_past gpg --batch --quiet --passphrase '' --quick-generate-key 'stranger <stranger@hb.invalid>' ed25519 sign never
end_agents

new_root apt1
repo=$root/srv/hb
publish() { tools/apt-repo.sh --key archive@hb.invalid --to "$repo" --url file:/srv/hb "$@"; }
must publish "$agent_old" "$server_old"
for file in Release Release.gpg InRelease main/binary-amd64/Packages.xz main/binary-arm64/Packages; do
    [[ -e $repo/dists/stable/$file ]] || fail "there is no $file"
done
gpg --batch --export archive@hb.invalid >"$work/key.gpg"
gpgv --keyring "$work/key.gpg" "$repo/dists/stable/Release.gpg" "$repo/dists/stable/Release" 2>/dev/null || fail "Release.gpg is not good"
for file in "$repo"/dists/stable/main/binary-amd64/Packages*; do
    [[ -e $repo/dists/stable/main/binary-amd64/by-hash/SHA256/$(sha256sum "$file" | cut -d' ' -f1) ]] || fail "$file is not there by its hash"
done
# By it the README's line for unattended upgrades finds the packages.
grep -qx 'Origin: hb' "$repo/dists/stable/Release" || fail "the origin is $(grep Origin "$repo/dists/stable/Release")"
grep -qF '"origin=hb";' README.md || fail "the README names another origin"
ok "made: dists, pool, Release, InRelease, Release.gpg, by-hash"
if tools/apt-repo.sh --key nobody@hb.invalid --to "$work/none" "$agent_old" >"$work/said" 2>&1; then fail "signed without a key"; fi
grep -q 'hint: gpg --list-secret-keys' "$work/said" || fail "a missing key is told so: $(cat "$work/said")"
mkdir "$work/other"
cp "$agent_new" "$work/other/$(basename "$agent_old")"
if publish "$work/other/$(basename "$agent_old")" >"$work/said" 2>&1; then fail "a published package was replaced"; fi
grep -q 'with other contents' "$work/said" || fail "the refusal says: $(cat "$work/said")"
ok "refuses to sign without the key, and to change what was published"

# As the README says.
rm -f "$root"/etc/apt/sources.list "$root"/etc/apt/sources.list.d/*
install -D -m 644 "$repo/hb-archive-keyring.asc" "$root/etc/apt/keyrings/hb-archive-keyring.asc"
install -m 644 "$repo/hb.sources" "$root/etc/apt/sources.list.d/hb.sources"
update() { within apt-get update -o APT::Update::Error-Mode=any -o Acquire::Languages=none; }
version() { chroot "$root" dpkg-query -W -f '${db:Status-Status} ${Version}' hb 2>/dev/null || true; }
must update
must within apt-get install -y hb
[[ $(version) == "installed $old" ]] || fail "apt installed: $(version)"
[[ $(chroot "$root" hb --version) == "hb $old" ]] || fail "the installed program is another one"
ok "apt installs hb from it, with the key and the .sources of the README"
sleep 1
must publish "$agent_new"
must update
must within apt-get upgrade -y
[[ $(version) == "installed $new" ]] || fail "apt upgraded to: $(version)"
ok "a new version is added, and apt upgrades to it"
must within apt-get purge -y hb

cp -a "$repo" "$work/good"
restore() { rm -rf "$repo" && cp -a "$work/good" "$repo" && rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/archives/*.deb; }
# refused WHAT PATTERN: apt refuses the lists, with these words, and installs nothing.
refused() {
    if update >"$work/said" 2>&1; then fail "apt takes a repository with $1: $(cat "$work/said")"; fi
    grep -qE "$2" "$work/said" || fail "apt refuses $1 for another reason: $(cat "$work/said")"
    if within apt-get install -y hb >"$work/said" 2>&1; then fail "apt installs from a repository with $1"; fi
    [[ -z $(version) || $(version) == 'not-installed '* || $(version) == unknown* ]] || fail "with $1, hb is $(version)"
}
restore
sed -i 's/^Version: .*/Version: 9.9/' "$repo"/dists/stable/main/binary-amd64/Packages
xz -kf "$repo"/dists/stable/main/binary-amd64/Packages
gzip -kf "$repo"/dists/stable/main/binary-amd64/Packages
for file in "$repo"/dists/stable/main/binary-amd64/by-hash/SHA256/*; do cp "$repo"/dists/stable/main/binary-amd64/Packages "$file"; done
refused "a tampered list" 'Hash Sum mismatch|unexpected size'
restore
sed -i 's/^Description: .*/Description: not ours/' "$repo"/dists/stable/InRelease
refused "a tampered InRelease" 'BADSIG|invalid|not signed'
restore
rm "$repo"/dists/stable/InRelease
sed -i 's/^Description: .*/Description: not ours/' "$repo"/dists/stable/Release
refused "a tampered Release" 'BADSIG|invalid'
restore
rm "$repo"/dists/stable/InRelease "$repo"/dists/stable/Release.gpg
refused "no signature" 'not signed|does not have a Release'
restore
must tools/apt-repo.sh --key stranger@hb.invalid --to "$repo" "$agent_new"
refused "a stranger's signature" 'NO_PUBKEY|not signed'
restore
must in_the_past tools/apt-repo.sh --key archive@hb.invalid --to "$repo" --valid-days 7 "$agent_new"
end_agents
grep -q '^Valid-Until: ' "$repo/dists/stable/Release" || fail "there is no Valid-Until"
refused "lists that are too old" 'expired'
ok "apt refuses: a tampered list, InRelease and Release, no signature, a stranger's signature, lists that are too old"

restore
must update
size=$(stat -c %s "$repo/pool/main/h/hb/$(basename "$agent_new")")
printf 'X' | dd of="$repo/pool/main/h/hb/$(basename "$agent_new")" bs=1 seek=$((size / 2)) conv=notrunc status=none
if within apt-get install -y hb >"$work/said" 2>&1; then fail "apt installs a tampered package"; fi
grep -qE 'Hash Sum mismatch' "$work/said" || fail "apt refuses a tampered package for another reason: $(cat "$work/said")"
ok "apt refuses a tampered package"
restore
must update
must within apt-get install -y hb hb-server
ok "and installs both packages when nobody tampered"
