#!/usr/bin/env bash
# The packages, tried on real Debian roots: packaging-test.sh [--release] [--build | --built] [PART…]
# Parts: static (lintian, manuals, units), life (a booted systemd), cron (no systemd), apt (a signed repository),
# unattended (cloud-init, Ansible), piuparts, releases (an older and a newer Debian), arm64 (on an emulated processor). Default: all of
# them, at the same time; the last two only with --release. --release: the packages that `make deb` builds, and the bar on their size; else unoptimised ones,
# which are built faster. --build: only makes the packages and the root, for a later run with --built. Needs root, or sudo;
# everything stays in namespaces of its own and is removed afterwards.
set -euo pipefail
cd "$(dirname "$0")/.."
sudo=''
[[ $(id -u) == 0 ]] || sudo=sudo
profile=quick parts=() both=() only_build='' built=''
for arg; do
    case $arg in
        --release) profile=release ;;
        --build) only_build=1 ;;
        --built) built=1 ;;
        static | life | cron | apt | unattended | releases | arm64 | piuparts) parts+=("$arg") ;;
        *) echo "packaging: unknown argument $arg" >&2; exit 2 ;;
    esac
done
if ((!${#parts[@]})); then
    parts=(life static cron apt unattended piuparts)
    [[ $profile != release ]] || parts+=(releases arm64)
fi
began=$(date +%s)

# The Debian of the roots: with systemd, cron, Python (for Ansible) and cloud-init. Made once, beside the build.
base=.cache/root/bookworm.tar.zst
make_base() {
    [[ ! -e $base ]] || return 0
    mkdir -p "$(dirname "$base")"
    echo "packaging: making a Debian root, once"
    # A host without systemd gets its accounts from the standalone package.
    $sudo mmdebstrap --quiet --variant=minbase --mode=root \
        --include=systemd,systemd-sysv,dbus,ca-certificates,cron,python3,python3-apt,cloud-init \
        --customize-hook='chroot "$1" sh -c "cd /root && apt-get download -qq systemd-standalone-sysusers"' \
        bookworm "$base.new.tar.zst" >target/packaging-base.log 2>&1 || { tail target/packaging-base.log >&2; return 1; }
    $sudo mv "$base.new.tar.zst" "$base"
}
mkdir -p target
make_base &
making=$!

old=$(sed -n '/^\[workspace.package\]/,/^$/s/^version = "\(.*\)"/\1/p' Cargo.toml)
new=$old+next
if [[ $profile == release ]]; then
    debs=target/debian-test programs=target/x86_64-unknown-linux-musl/release how=(--to "$debs" amd64)
    # The packages for the other processor, too.
    [[ ! " ${parts[*]} " == *" arm64 "* ]] || both=(arm64)
else
    debs=target/debian-quick programs=target/x86_64-unknown-linux-musl/quick how=(--quick amd64)
fi
if [[ -z $built ]]; then
    tools/deb.sh "${how[@]}" "${both[@]}"
    HB_DEB_VERSION=$new tools/deb.sh "${how[@]}"
fi
[[ $profile != release ]] || ln -sf ../server/hb-server "$programs/hb-server"
wait "$making"
echo "packaging: packages and root after $(($(date +%s) - began)) s"
[[ -z $only_build ]] || exit 0

export PKG_DEBS=$debs PKG_OLD=$old PKG_NEW=$new PKG_PROGRAMS=$programs PKG_PROFILE=$profile
PKG_WORK=$(mktemp -d /tmp/hb-packaging.XXXXXX)
export PKG_WORK
logs=target/packaging
mkdir -p "$logs"
running=()
trap 'kill "${running[@]}" 2>/dev/null; wait; exit 130' INT TERM
for part in "${parts[@]}"; do
    $sudo ${sudo:+--preserve-env=PKG_DEBS,PKG_OLD,PKG_NEW,PKG_PROGRAMS,PKG_PROFILE} timeout --kill-after=20 400 \
        "tools/packaging/$part.sh" >"$logs/$part.log" 2>&1 &
    running+=($!)
    # How long an installation takes is measured before the other parts take the processors.
    while [[ $part == life ]] && kill -0 "${running[-1]}" 2>/dev/null && ! grep -q 'first accepted beat' "$logs/life.log"; do
        sleep 0.2
    done
done
failed=0 broken=()
for i in "${!parts[@]}"; do
    part=${parts[i]} code=0
    wait "${running[i]}" || code=$?
    cat "$logs/$part.log"
    ((code != 124)) || echo "packaging: $part: FAILED: took longer than 400 s"
    ((code == 0)) || { failed=$((failed + 1)); broken+=("$part"); }
done
# Whatever happened, nothing stays: no process, no mount, no network, no file.
left=$(
    pgrep -af "$PKG_WORK"
    $sudo find /proc -maxdepth 2 -name root -lname "$PKG_WORK*" 2>/dev/null
    grep -F "$PKG_WORK" /proc/mounts
    find "$PKG_WORK" -mindepth 1 -maxdepth 2
) || true
rmdir "$PKG_WORK" 2>/dev/null || true
if [[ -n $left ]]; then
    echo "packaging: FAILED: left behind: $left"
    failed=$((failed + 1)) broken+=(cleaning)
else
    echo "packaging: all: ok: nothing is left behind"
fi
passed=$(for part in "${parts[@]}"; do grep -E '^packaging: [a-z]+: ok: ' "$logs/$part.log" || true; done | wc -l)
[[ -n $left ]] || passed=$((passed + 1))
((${#broken[@]} == 0)) || echo "packaging: broken: ${broken[*]}"
echo "packaging: $passed passed, $failed failed, in $(($(date +%s) - began)) s"
((failed == 0 && passed > 0))
