#!/usr/bin/env bash
# Installs what is missing of what the tests need: setup.sh [PART]. Quick when there is nothing to do. Parts: deb (what builds the
# packages, and nothing else), packages (that, and what tests them, with the rest of the tests), arm64 and boot (for those two tests,
# with the rest).
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:-}
case $what in '' | deb | packages | arm64 | boot) ;; *) echo "setup: there is no part $what" >&2; exit 2 ;; esac

# apt FILE-OR-COMMAND PACKAGE: notes the package as missing unless the command (or the absolute path) exists.
missing=()
apt() {
    if [[ $1 == /* ]]; then [[ -e $1 ]] && return; else command -v "$1" >/dev/null && return; fi
    missing+=("$2")
}
# Installs what is missing, in one go.
apt_install() {
    ((${#missing[@]})) || return 0
    echo "setup: installing the Debian packages ${missing[*]}"
    ${SUDO:-} apt-get update -qq
    ${SUDO:-} env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    missing=()
}
[[ $(id -u) == 0 ]] || SUDO=sudo

command -v cargo >/dev/null || { echo "setup: Rust is missing: install rustup and run again" >&2; exit 1; }
apt cc build-essential
apt python3 python3
python3 -c 'import ensurepip' 2>/dev/null || apt /usr/lib/python3/dist-packages/ensurepip python3-venv
if [[ $what != deb ]]; then
    apt node nodejs
    apt npm npm
    apt curl curl
    apt script bsdutils
    apt chrt util-linux
    apt faketime faketime
    # Each reads its completions.
    apt zsh zsh
    apt fish fish
    # The tests of a broken network, in namespaces of their own.
    apt ip iproute2
    apt nft nftables
fi
if [[ $what == deb || $what == packages ]]; then
    apt dh debhelper
    apt x86_64-linux-gnu-strip binutils-x86-64-linux-gnu
    apt aarch64-linux-gnu-strip binutils-aarch64-linux-gnu
fi
if [[ $what == packages ]]; then
    apt lintian lintian
    # A booted root.
    apt mmdebstrap mmdebstrap
    apt systemd-nspawn systemd-container
    apt man man-db
    # The signed repository, a host from nothing, and what a purge leaves.
    apt apt-ftparchive apt-utils
    apt gpg gnupg
    apt xz xz-utils
    apt piuparts piuparts
fi
if [[ $what == arm64 ]]; then
    apt qemu-aarch64-static qemu-user-static
fi
if [[ $what == boot ]]; then
    apt qemu-system-x86_64 qemu-system-x86
    apt mkfs.ext4 e2fsprogs
    apt openssl openssl
fi
apt_install

if [[ $what == deb || $what == packages ]]; then
    # musl by zig, on both architectures.
    rustup target add --toolchain "$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)" \
        x86_64-unknown-linux-musl aarch64-unknown-linux-musl
    [[ -x .cache/zig/bin/cargo-zigbuild ]] || {
        python3 -m venv .cache/zig
        .cache/zig/bin/pip install --quiet --disable-pip-version-check ziglang cargo-zigbuild
    }
fi
[[ $what != deb ]] || exit 0

# cargo-nextest runs the tests, cargo-deny checks licences and layering.
command -v cargo-nextest >/dev/null || cargo install --locked cargo-nextest
command -v cargo-deny >/dev/null || cargo install --locked cargo-deny

if [[ $what == packages ]]; then
    # For the Python of the Debian roots, whatever this machine has.
    cmp -s tools/packaging/requirements.txt .cache/ansible/requirements.txt || {
        rm -rf .cache/ansible
        .cache/zig/bin/pip install --quiet --disable-pip-version-check --target .cache/ansible --python-version 3.11 \
            --platform manylinux2014_x86_64 --only-binary :all: -r tools/packaging/requirements.txt
        cp tools/packaging/requirements.txt .cache/ansible/
    }
fi

# What each part of the tests needs stands beside it. One compiles, the others wait for the network: at the same time.
tools/dynamodb/setup.sh &
compiling=$!
tools/interop/setup.sh
# What checks the deployment on AWS, and runs it on loopback.
tools/lambda/setup.sh build
tools/cloud.sh --setup
wait "$compiling"
