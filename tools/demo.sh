#!/usr/bin/env bash
# hb's main job on this machine, for real, in half a minute: a server on an embedded database, a host with an agent, the
# agent's death, the alert, the return with its cause. Everything stays on loopback and in one temporary directory.
set -euo pipefail
cd "$(dirname "$0")/.."

# Colours for people only.
bold='' faint='' red='' green='' plain=''
if [[ -t 1 && -z ${NO_COLOR:-} && ${TERM:-dumb} != dumb ]]; then
    bold=$'\033[1m' faint=$'\033[2m' red=$'\033[31m' green=$'\033[32m' plain=$'\033[0m'
fi
say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
show() {
    printf '%s$ %s%s\n' "$faint" "$*" "$plain"
    "$@"
}
# wait_for SECONDS WHAT COMMAND…: until the command succeeds.
wait_for() {
    local until=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        if ((SECONDS >= until)); then
            echo "demo: waited in vain for $what; the server said:" >&2
            tail -n 20 "$dir/server.log" >&2
            exit 1
        fi
        sleep 0.1
    done
}

# HB_DEMO_BIN: where the programs are already, as in `make test`.
bin=${HB_DEMO_BIN:-${CARGO_TARGET_DIR:-target}/debug}
if [[ -z ${HB_DEMO_BIN:-} ]]; then
    say "Building hb and hb-server (the first time takes ten minutes or so)"
    # Both at once: one after the other would build what they share twice, with other features.
    cargo build -p hb -p hb-server
fi
PATH=$(cd "$bin" && pwd):$PATH

dir=$(mktemp -d)
pids=()
finish() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$dir"
}
trap finish EXIT
export XDG_CONFIG_HOME=$dir/config HB_STATE_DIR=$dir/state
unset HB_SERVER HB_API_KEY HB_CONFIG

say "1. A server: one process, one embedded database"
# The alert goes to a program, here one that writes the message to a file. Webhooks and e-mail work the same way.
cat >"$dir/alert" <<EOF
#!/bin/sh
printf '%s\\n' "\$(sed -n 's/.*"message":"\([^"]*\)".*/\1/p')" >>$dir/alerts
EOF
chmod 755 "$dir/alert"
printf 'exec_programs = ["%s"]\n' "$dir/alert" >"$dir/server.toml"
HB_API_KEY=$(hb-server init --data "$dir/data" 2>"$dir/init.log")
export HB_API_KEY
hb-server serve --data "$dir/data" --listen 127.0.0.1:0 --config "$dir/server.toml" 2>"$dir/server.log" &
pids+=($!)
wait_for 20 "the server" grep -q 'listening on' "$dir/server.log"
HB_SERVER=$(grep -o 'listening on [^ ]*' "$dir/server.log" | head -n 1 | cut -d' ' -f3)
export HB_SERVER
echo "hb-server listens on $HB_SERVER"
show hb channels add exec --program "$dir/alert" --name terminal

say "2. A host: makes its own key, enrols with a token that works once, and beats"
hb tokens create --uses 1 --expires 10m >"$dir/token" 2>/dev/null
show hb register --server "$HB_SERVER" --token-file "$dir/token" --name web1 --interval 2s --grace 3s
hb agent 2>"$dir/agent.log" &
agent=$!
pids+=("$agent")
wait_for 20 "the first beat" sh -c 'hb status web1 --json | grep -q "\"state\": *\"up\""'
show hb status

say "3. The host dies: kill -9, no goodbye"
# Collected at once, so that the shell has nothing to say about it.
{ kill -9 "$agent" && wait "$agent"; } 2>/dev/null || true
wait_for 30 "the alert" grep -q DOWN "$dir/alerts"
printf 'alert received: %s%s%s\n' "$red" "$(head -n 1 "$dir/alerts")" "$plain"
show hb status
show hb why web1

say "4. It comes back, and says why it was away"
hb agent 2>>"$dir/agent.log" &
pids+=($!)
wait_for 30 "the recovery" grep -qi 'back' "$dir/alerts"
printf 'alert received: %s%s%s\n' "$green" "$(grep -i back "$dir/alerts")" "$plain"
show hb history web1

say "Done. Everything it made is removed; README.md shows how to do it for real."
