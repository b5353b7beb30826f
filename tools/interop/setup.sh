#!/bin/sh
# Installs the independent implementations of RFC 9421 that `crates/hb-wire/tests/it/interop.rs` checks hb against,
# into .cache/interop. Does nothing when they are there already.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=$(cd "$here/../.." && pwd)/.cache/interop
wanted=$(cat "$here/setup.sh" "$here/requirements.txt" "$here/package.json" "$here/package-lock.json" | sha256sum)

if [ -x "$cache/venv/bin/python" ] && [ "$(cat "$cache/installed" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi

say() { echo "tools/interop/setup.sh: $*" >&2; }

missing=""
command -v python3 >/dev/null && python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3 python3-venv"
command -v node >/dev/null && command -v npm >/dev/null || missing="$missing nodejs npm"
if [ -n "$missing" ]; then
    as_root=""
    if [ "$(id -u)" -ne 0 ]; then as_root="sudo"; fi
    command -v apt-get >/dev/null || { say "please install:$missing"; exit 1; }
    say "installing$missing"
    $as_root apt-get update -qq
    # shellcheck disable=SC2086 # each word is a package
    DEBIAN_FRONTEND=noninteractive $as_root apt-get install -qq -y --no-install-recommends $missing >/dev/null
fi

# The stamp is written last, so that an interrupted run is done again from the start.
rm -rf "$cache"
mkdir -p "$cache/node"
say "installing the Python judge"
python3 -m venv "$cache/venv"
"$cache/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
    --requirement "$here/requirements.txt"
say "installing the JavaScript judges"
cp "$here/package.json" "$here/package-lock.json" "$here/.npmrc" "$cache/node/"
(cd "$cache/node" && npm ci --silent --no-audit --no-fund --ignore-scripts)
echo "$wanted" >"$cache/installed"
