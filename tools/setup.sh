#!/usr/bin/env bash
# Installs what the tests need, if it is not there yet. Quick when there is nothing to do.
set -euo pipefail
cd "$(dirname "$0")/.."

# apt FILE-OR-COMMAND PACKAGE: installs the package unless the command (or the absolute path) exists.
apt() {
    if [[ $1 == /* ]]; then [[ -e $1 ]] && return; else command -v "$1" >/dev/null && return; fi
    echo "setup: installing the Debian package $2"
    if [[ -z ${apt_updated:-} ]]; then
        ${SUDO:-} apt-get update -qq
        apt_updated=1
    fi
    DEBIAN_FRONTEND=noninteractive ${SUDO:-} apt-get install -y -qq --no-install-recommends "$2" >/dev/null
}
[[ $(id -u) == 0 ]] || SUDO=sudo

command -v cargo >/dev/null || { echo "setup: Rust is missing: install rustup and run again" >&2; exit 1; }
apt cc build-essential
apt python3 python3
apt node nodejs
apt npm npm
apt curl curl
apt script bsdutils
apt faketime faketime
python3 -c 'import ensurepip' 2>/dev/null || apt /usr/lib/python3/dist-packages/ensurepip python3-venv

# cargo-nextest runs the tests, cargo-deny checks licences and layering.
command -v cargo-nextest >/dev/null || cargo install --locked cargo-nextest
command -v cargo-deny >/dev/null || cargo install --locked cargo-deny

# Only for `make deb` and `make test-packages`.
if [[ ${1:-} == packages ]]; then
    # The packages and their test: musl by zig on both architectures, debhelper, lintian, a booted root.
    apt dh debhelper
    apt lintian lintian
    apt x86_64-linux-gnu-strip binutils-x86-64-linux-gnu
    apt aarch64-linux-gnu-strip binutils-aarch64-linux-gnu
    apt mmdebstrap mmdebstrap
    apt systemd-nspawn systemd-container
    apt ip iproute2
    apt man man-db
    rustup target add --toolchain "$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)" \
        x86_64-unknown-linux-musl aarch64-unknown-linux-musl
    [[ -x .cache/zig/bin/cargo-zigbuild ]] || {
        python3 -m venv .cache/zig
        .cache/zig/bin/pip install --quiet --disable-pip-version-check ziglang cargo-zigbuild
    }
fi

[[ ! -x tools/interop/setup.sh ]] || tools/interop/setup.sh
tools/dynamodb/setup.sh
