#!/usr/bin/env bash
# Builds the Debian packages: deb.sh [--quick] [--to DIR] [amd64|arm64]…   Default: both, optimised, into target/debian/.
# --quick: unoptimised, into target/debian-quick/; for the packaging test. HB_DEB_VERSION names another version.
set -euo pipefail
cd "$(dirname "$0")/.."
quick='' arches=() out=''
while (($#)); do
    case $1 in
        --quick) quick=1 ;;
        --to) out=${2:?}; shift ;;
        amd64 | arm64) arches+=("$1") ;;
        *) echo "deb: unknown argument $1" >&2; exit 2 ;;
    esac
    shift
done
((${#arches[@]})) || arches=(amd64 arm64)
version=${HB_DEB_VERSION:-$(sed -n '/^\[workspace.package\]/,/^$/s/^version = "\(.*\)"/\1/p' Cargo.toml)}
maintainer=hb@noreply.hb.invalid
# The same sources make the same bytes: dates are those of the last commit.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH HB_DEB_LEVEL=${quick:+1}
out=${out:-target/debian${quick:+-quick}}
mkdir -p "$out"

# zig is the C compiler and linker for musl on both architectures.
zig=$PWD/.cache/zig/bin
[[ -x $zig/cargo-zigbuild ]] || tools/setup.sh deb
export PATH=$zig:$PATH

build() { # TRIPLE PROFILE PACKAGE
    cargo zigbuild --quiet --locked --target "$1" --profile "$2" -p "$3"
}

for arch in "${arches[@]}"; do
    case $arch in amd64) triple=x86_64-unknown-linux-musl ;; arm64) triple=aarch64-unknown-linux-musl ;; esac
    agent=${quick:+quick} server=${quick:+quick}
    agent=${agent:-release} server=${server:-server}
    echo "deb: building for $arch"
    build "$triple" "$agent" hb
    build "$triple" "$server" hb-server

    tree=target/debian-tree/$arch${quick:+-quick}
    rm -rf "$tree"
    mkdir -p "$tree"/stage/{man1,man5,man8,examples,completions/{bash,zsh,fish}}
    cp -r packaging/debian "$tree/debian"
    cp packaging/systemd/hb.service "$tree/debian/hb.service"
    cp packaging/systemd/hb-server.service "$tree/debian/hb-server.service"
    stage=$tree/stage
    cp "target/$triple/$agent/hb" "target/$triple/$server/hb-server" packaging/config/{agent,server}.toml "$stage"
    # What compilers wrote about themselves is no use on a server.
    "${triple%%-*}-linux-gnu-strip" --remove-section=.comment "$stage/hb" "$stage/hb-server"
    cp packaging/examples/cron "$stage/examples"
    cp CHANGELOG.md "$stage/NEWS"
    install -D -m 755 packaging/systemd/sleep "$stage/sleep/hb"

    # Pages and completions come from the program itself: from one that runs here.
    native=$stage
    if [[ $arch != "$(dpkg --print-architecture)" ]]; then
        cargo build --quiet -p hb
        cargo build --quiet -p hb-server
        native=${CARGO_TARGET_DIR:-target}/debug
    fi
    "$native/hb" --quiet man --dir "$stage/man1"
    "$native/hb-server" man >"$stage/man8/hb-server.8"
    for program in hb hb-server; do
        "$native/$program" completions bash >"$stage/completions/bash/$program"
        "$native/$program" completions zsh >"$stage/completions/zsh/_$program"
        "$native/$program" completions fish >"$stage/completions/fish/$program.fish"
    done
    for package in hb hb-server; do
        mkdir -p "$stage/notices/$package"
        python3 tools/packaging/notices.py "$package" "$triple" >"$stage/notices/$package/NOTICES"
    done
    for name in agent server; do
        python3 packaging/man/toml2man.py packaging/config/$name.toml $name.toml packaging/man/$name.toml.in \
            >"$stage/man5/$name.toml.5"
    done

    sed -i "s/@VERSION@/$version/g; s/MAINTAINER/$maintainer/; s/@DATE@/$(date -R -u -d "@$SOURCE_DATE_EPOCH")/" \
        "$tree"/debian/{control,changelog,hb.preinst,hb-server.preinst}
    (cd "$tree" && dpkg-buildpackage --build=binary --host-arch "$arch" --no-check-builddeps --no-sign \
        >../"$arch.log" 2>&1) || { tail -n 30 "target/debian-tree/$arch.log" >&2; exit 1; }
    for package in hb hb-server; do
        mv "target/debian-tree/${package}_${version}_$arch.deb" "$out/"
        printf 'deb: %s, %s bytes\n' "$out/${package}_${version}_$arch.deb" "$(stat -c %s "$out/${package}_${version}_$arch.deb")"
    done
done
