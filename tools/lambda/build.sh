#!/usr/bin/env bash
# Builds the functions for AWS: arm64, in target/lambda/NAME/bootstrap.zip, as packaging/lambda/template.yaml wants them.
# No Docker, and no compiler for arm64 from the system: zig links.
set -euo pipefail
cd "$(dirname "$0")/../.."

target=aarch64-unknown-linux-gnu
functions=(ingest api sweeper notifier)

tools/lambda/setup.sh build
toolchain=$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)
rustup target list --toolchain "$toolchain" --installed | grep -qx "$target" \
    || rustup target add --toolchain "$toolchain" "$target"

# What is left of an earlier build must not be taken for a new one.
for function in "${functions[@]}"; do rm -f "target/lambda/$function/bootstrap.zip"; done

# cargo-lambda finds zig by the Python of its own environment.
PATH=$PWD/.cache/lambda/build/bin:$PATH cargo lambda build -p hb-lambda --arm64 --output-format zip --profile function --locked

for function in "${functions[@]}"; do
    zip=target/lambda/$function/bootstrap.zip
    [[ -s $zip ]] || { echo "build: $zip was not made" >&2; exit 1; }
    [[ $function != ingest || $(stat -c %s "$zip") -le 3500000 ]] || { echo "build: $zip has more than 3.5 MB: it would start slowly" >&2; exit 1; }
    # What takes the beats, and what looks for silence, carry nothing that tells anybody.
    tells=no
    [[ $function != api && $function != notifier ]] || tells=yes
    python3 -c 'import sys, zipfile
program = zipfile.ZipFile(sys.argv[1]).read("bootstrap")
sys.exit(any((word in program) != (sys.argv[2] == "yes") for word in (b"webhook", b"TopicArn")))' "$zip" "$tells" \
        || { echo "build: $zip holds more than $function is for, or less" >&2; exit 1; }
    printf 'lambda: %-9s %6d KB  %s\n' "$function" "$(($(stat -c %s "$zip") / 1024))" "$zip"
done
