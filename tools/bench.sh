#!/usr/bin/env bash
# Measures the figures of hb on this machine. Takes about half an hour; HB_BENCH_QUICK=1 takes about five minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
make --no-print-directory build
cargo build --profile server -p hb-bench
bench=target/server/hb-bench
if [[ -n ${HB_BENCH_QUICK:-} ]]; then
    pairs=3 hosts=10000 detect=(--hosts 1000 --deaths 100 --seconds 60) agent=(--beats 100 --seconds 20)
else
    pairs=9 hosts=100000 detect=() agent=()
fi
$bench server --pairs $pairs
$bench memory --hosts $hosts
$bench detect "${detect[@]}"
$bench agent "${agent[@]}"
