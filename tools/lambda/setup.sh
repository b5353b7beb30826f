#!/usr/bin/env bash
# Installs what the template of the deployment is checked with (cfn-lint, sam) into .cache/lambda; with `build`, what the
# functions are built with (cargo-lambda, zig) as well. Quick when all is there already; everything comes from PyPI.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
cache=$(cd "$here/../.." && pwd)/.cache/lambda

say() { echo "tools/lambda/setup.sh: $*" >&2; }

# venv NAME PACKAGE…: an environment of its own, since the tools disagree about what they depend on.
venv() {
    local name=$1 venv=$cache/$1
    shift
    [[ -x $venv/bin/python && $(cat "$venv/installed" 2>/dev/null) == "$*" ]] && return
    say "installing $*"
    rm -rf "$venv"
    python3 -m venv "$venv" || { say "python3 cannot make a virtual environment: install python3-venv"; exit 1; }
    "$venv/bin/pip" install --quiet --disable-pip-version-check "$@" \
        || { say "$* cannot be installed: is PyPI reached?"; exit 1; }
    # Written last, so that an interrupted run is done again.
    echo "$*" >"$venv/installed"
}

mkdir -p "$cache"
venv cfn-lint cfn-lint==1.58.0 aws-sam-translator==1.115.0
venv sam aws-sam-cli==1.170.0 aws-sam-translator==1.115.0
if [[ ${1:-} == build ]]; then
    venv build cargo-lambda==1.9.2 ziglang==0.17.1
fi
