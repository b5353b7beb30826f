#!/usr/bin/env bash
# Simulates fresh worlds for as long as asked (for example 30m): half of the time each level. Prints every seed that failed.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo run -q -p hb-sim -- --level domain --for "$1" --seed "$(date +%s)"
cargo run -q -p hb-sim -- --level router --for "$1" --seed "$(date +%s)"
