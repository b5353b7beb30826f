#!/usr/bin/env bash
# Formatting, lints, documentation, licences, layering.
set -euo pipefail
cd "$(dirname "$0")/.."

echo "check: cargo fmt"
cargo fmt --all --check >/dev/null || echo "check: WARNING: run cargo fmt --all"
echo "check: cargo clippy"
cargo clippy --workspace --all-targets --quiet
echo "check: cargo deny"
# The graph spans every platform, a build only this one: what no build has fetched yet is fetched here.
cargo fetch --locked --quiet
cargo deny --offline --log-level error check bans licenses sources
