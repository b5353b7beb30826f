#!/bin/sh
# Builds the DynamoDB that `crates/hb-store-dynamodb` is tested against into .cache/dynamodb/hb-dynamodb.
# Does nothing when it is there already.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=$(cd "$here/../.." && pwd)/.cache/dynamodb
wanted=$(cat "$here/setup.sh" "$here/Cargo.toml" "$here/Cargo.lock" "$here"/src/*.rs | sha256sum)

if [ -x "$cache/hb-dynamodb" ] && [ "$(cat "$cache/installed" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi

echo "tools/dynamodb/setup.sh: building the DynamoDB for tests; takes a few minutes, once" >&2
mkdir -p "$cache"
(cd "$here" && cargo build --locked --quiet --target-dir "$cache/target")
cp "$cache/target/debug/hb-dynamodb" "$cache/hb-dynamodb.new"
mv "$cache/hb-dynamodb.new" "$cache/hb-dynamodb"
# The stamp is written last, so that an interrupted run is done again.
echo "$wanted" >"$cache/installed"
