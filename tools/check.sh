#!/usr/bin/env bash
# Formatting, lints, documentation, licences, layering.
set -euo pipefail
cd "$(dirname "$0")/.."

echo "check: cargo fmt"
cargo fmt --all --check >/dev/null || { echo "check: not formatted; run: cargo fmt --all" >&2; exit 1; }
echo "check: cargo clippy"
cargo clippy --workspace --all-targets --quiet -- -D warnings
echo "check: cargo doc"
RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" cargo doc --workspace --no-deps --document-private-items --quiet
echo "check: cargo deny"
# The graph spans every platform, a build only this one: what no build has fetched yet is fetched here.
cargo fetch --locked --quiet
cargo deny --offline --log-level error check bans licenses sources
