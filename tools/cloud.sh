#!/usr/bin/env bash
# The stack of packaging/lambda on loopback. Arguments go to tools/cloud/cloud.py; `--setup` only installs what it alone needs.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=.cache/cloud/venv
wanted='moto[server,sns,sqs]==5.2.5 boto3==1.44.8 PyYAML==6.0.4'
if [[ $(cat "$venv/installed" 2>/dev/null) != "$wanted" ]]; then
    echo "setup: installing the SNS and SQS of the local cloud (moto) from PyPI" >&2
    rm -rf "$venv"
    python3 -m venv "$venv"
    # shellcheck disable=SC2086 # one word for each package
    "$venv/bin/pip" install -q $wanted
    echo "$wanted" >"$venv/installed"
fi
[[ ${1:-} != --setup ]] || exit 0
tools/dynamodb/setup.sh
tools/lambda/setup.sh build
exec "$venv/bin/python" tools/cloud/cloud.py "$@"
