#!/usr/bin/env bash
# Every test. Prints the counts at the end.
set -euo pipefail
cd "$(dirname "$0")/.."

# The tests call clouds on loopback alone; with credentials at hand, a mistake in one could reach another.
while read -r name; do
    [[ -z ${!name:-} ]] || { echo "tools/test.sh: $name is set: tests must not have credentials of AWS at hand. Unset it." >&2; exit 2; }
done <tools/cloud/credentials

start=$(date +%s)
mkdir -p target
log=target/test.log
: >"$log"
broken=()

# run NAME COMMAND…: runs it, keeps its output for the counts.
run() {
    local name=$1
    shift
    echo "== $name"
    "$@" 2>&1 | tee -a "$log" || { echo "== $name: FAILED"; broken+=("$name"); }
}

# The demo. Without a terminal it has no colours, and the shell says nothing about the agent that it kills.
demo() {
    local out code=0
    out=$(HB_DEMO_BIN=target/debug tools/demo.sh 2>&1) || code=$?
    printf '%s\n' "$out"
    ((code == 0)) && ! grep -qE $'\033|Killed' <<<"$out"
}

# What runs beside the tests, which mostly wait, and only when they do (SCHED_IDLE): a chain of commands one after the other,
# each with its output and its exit code in a file, for `told`. A world that breaks a promise fails and names its seed.
beside() {
    local code name=$1
    shift
    code=0
    chrt --idle 0 "$@" >"$aside/$name.log" 2>&1 || code=$?
    echo "$code" >"$aside/$name.code"
}
simulations() {
    beside "state machine" target/debug/hb-sim --host-hours 1000000
    beside "signed router" target/debug/hb-sim --level router --host-hours 10000
    beside "two regions" target/debug/hb-sim-regions --worlds 64
}
builds() {
    beside "packages" tools/packaging-test.sh --build
    beside "check" tools/check.sh
}
told() {
    cat "$aside/$1.log"
    [[ $(cat "$aside/$1.code") == 0 ]]
}

# Not part of this run, and said so: how fast a death is told is a figure of an optimised server on a quiet machine.
echo "not run here: test(heavy_detection); run it with: make test-heavy"
run "the build" cargo nextest run --workspace --no-run
aside=target/beside
rm -rf "$aside"
mkdir -p "$aside"
# Each with its children in a process group of its own, so that all of it can be ended.
set -m
simulations &
simulating=$!
builds &
building=$!
set +m
trap 'kill -- -"$simulating" -"$building" 2>/dev/null' EXIT
run "unit, contract, router, real binaries" cargo nextest run --workspace --no-fail-fast -E 'not test(heavy_detection)'
run "the demo: a real agent, a real server, a death, a return" demo
run "deployment on AWS: linted, expanded, compared with the code" tools/lambda/lint.sh
wait "$building" || true
run "packages: built" told "packages"
run "packages: installed, booted, killed, upgraded, removed" tools/packaging-test.sh --built
run "formatting, lints, documentation, licences, layering" told "check"
run "examples in the documentation" cargo test --workspace --doc --quiet
wait "$simulating" || true
for name in "state machine" "signed router" "two regions"; do
    run "simulated worlds: $name" told "$name"
done
trap - EXIT

python3 - "$log" "$start" "${broken[@]}" <<'PY'
import re, sys, time
text = re.sub(r"\x1b\[[0-9;]*m", "", open(sys.argv[1], encoding="utf-8", errors="replace").read())
passed = failed = 0
# What failed, for the very end: names as nextest, cargo's own harness and the packaging test print them, and why tests panicked.
reasons = {}
lines = text.splitlines()
for line, after in zip(lines, lines[1:] + [""]):
    if m := re.match(r"\s*(?:FAIL|TIMEOUT|ABORT|SIG[A-Z]+) \[.*?\]\s*(?:\(.*?\)\s*)?(.+)|test (.+) \.\.\. FAILED|(packaging: .*FAILED.*)", line):
        reasons[next(filter(None, m.groups())).strip()] = True
    elif m := re.match(r"\s*(thread .* panicked at .*)", line):
        reasons[f"{m[1]} {after.strip()}"[:400]] = True
for line in lines:
    if m := re.search(r"Summary .*?(\d+) tests? run: (\d+) passed(?:.*?(\d+) failed)?", line):
        passed += int(m[2]); failed += int(m[3] or 0)
    elif m := re.match(r"test result: \w+\. (\d+) passed; (\d+) failed", line):
        passed += int(m[1]); failed += int(m[2])
    elif m := re.match(r"(?:packaging|lambda): (\d+) passed, (\d+) failed", line):
        passed += int(m[1]); failed += int(m[2])
    elif m := re.search(r"simulation \((.*)\): (\d+) host-hours in (\d+) worlds.*; (\d+) worlds with violations", line):
        print(f"{m[2]} host-hours simulated at the level of the {m[1]}: {m[4]} of {m[3]} worlds broke a promise")
        failed += int(m[4])
minutes = (time.time() - int(sys.argv[2])) / 60
print(f"all tests, in {minutes:.1f} minutes")
print(f"{passed} passed, {failed} failed")
if failed or sys.argv[3:]:
    print("\n".join(["failed:", *(f"step: {step}" for step in sys.argv[3:]), *reasons]))
sys.exit(1 if failed or not passed or sys.argv[3:] else 0)
PY
