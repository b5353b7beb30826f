#!/usr/bin/env bash
# Makes, or adds to, a signed apt repository: apt-repo.sh --key KEY [--to DIR] [--url URL] [--valid-days N] [DEB…]
# KEY names a secret key of your own gpg, by fingerprint or address. Default: target/apt, from target/debian/*.deb.
# DIR is then served as it is, by any web server, under URL. With --valid-days, hosts refuse the repository when it was not
# made again for so long: nobody can then hold back an update by serving an old copy, and you have to run this in time.
set -euo pipefail
cd "$(dirname "$0")/.."
key='' to=target/apt url=https://apt.example.org/hb valid_days='' debs=()
while (($#)); do
    case $1 in
        --key) key=${2:?}; shift ;;
        --to) to=${2:?}; shift ;;
        --url) url=${2:?}; shift ;;
        --valid-days) valid_days=${2:?}; shift ;;
        -*) echo "apt-repo: unknown argument $1" >&2; exit 2 ;;
        *) debs+=("$1") ;;
    esac
    shift
done
say() { echo "apt-repo: $*"; }
die() { echo "apt-repo: $1" >&2; [[ -z ${2:-} ]] || echo "hint: $2" >&2; exit 1; }
[[ -n $key ]] || die "no key to sign with" "make apt-repo KEY=FINGERPRINT; gpg --quick-generate-key 'hb archive <you@example.org>' ed25519 sign 2y makes one"
[[ -z $valid_days || $valid_days =~ ^[1-9][0-9]*$ ]] || die "--valid-days is a number of days, not $valid_days"
command -v apt-ftparchive >/dev/null || die "apt-ftparchive is missing" "apt-get install apt-utils"
if ((${#debs[@]} == 0)); then
    shopt -s nullglob
    debs=(target/debian/*.deb)
    shopt -u nullglob
    ((${#debs[@]})) || die "there are no packages in target/debian" "make deb"
fi
fingerprint=$(gpg --batch --with-colons --list-secret-keys "$key" 2>/dev/null | awk -F: '$1 == "fpr" && !n++ {print $10}') || true
[[ -n $fingerprint ]] || die "gpg has no secret key $key" "gpg --list-secret-keys"

pool=$to/pool/main/h/hb
mkdir -p "$pool"
for deb in "${debs[@]}"; do
    [[ -f $deb ]] || die "there is no package $deb"
    # Hosts may have it already: what was published is never changed.
    if [[ -e $pool/$(basename "$deb") ]]; then
        cmp -s "$deb" "$pool/$(basename "$deb")" \
            || die "$(basename "$deb") is in $to already, with other contents" "give the package a new version"
    fi
done
# With the names that apt looks for, whatever the file was called.
cp -p "${debs[@]}" "$pool/"

# The new lists are made beside the old ones, and the signed list of lists is replaced last: whoever reads meanwhile finds the
# files of the old one under the names of their hashes.
dist=$to/dists/stable
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
mkdir -p "$fresh/dists/stable"
for arch in amd64 arm64; do
    dir=$fresh/dists/stable/main/binary-$arch
    mkdir -p "$dir"
    (cd "$to" && apt-ftparchive -qq --arch "$arch" --md5=no --sha1=no --sha512=no packages pool) >"$dir/Packages"
    xz -k "$dir/Packages"
    gzip -kn9 "$dir/Packages"
done
options=(-o APT::FTPArchive::Release::Origin=hb -o APT::FTPArchive::Release::Label=hb -o APT::FTPArchive::Release::Suite=stable
    -o APT::FTPArchive::Release::Codename=stable -o APT::FTPArchive::Release::Components=main
    -o "APT::FTPArchive::Release::Architectures=amd64 arm64" -o APT::FTPArchive::Release::Acquire-By-Hash=yes
    -o "APT::FTPArchive::Release::Description=heartbeats for servers" -o APT::FTPArchive::MD5=no -o APT::FTPArchive::SHA1=no -o APT::FTPArchive::SHA512=no)
if [[ -n $valid_days ]]; then
    options+=(-o "APT::FTPArchive::Release::ValidTime=$((valid_days * 86400))")
fi
(cd "$fresh/dists/stable" && apt-ftparchive -qq "${options[@]}" release .) >"$fresh/Release"
sign() { gpg --batch --yes --local-user "$fingerprint" --digest-algo SHA512 "$@"; }
sign --clearsign --output "$fresh/InRelease" "$fresh/Release" || die "gpg could not sign"
sign --armor --detach-sign --output "$fresh/Release.gpg" "$fresh/Release" || die "gpg could not sign"
# Nothing is published that hosts would refuse.
gpg --batch --export "$fingerprint" >"$fresh/key.gpg"
gpgv --quiet --keyring "$fresh/key.gpg" "$fresh/InRelease" 2>"$fresh/said" || die "the signature does not verify: $(cat "$fresh/said")"

for arch in amd64 arm64; do
    from=$fresh/dists/stable/main/binary-$arch there=$dist/main/binary-$arch
    mkdir -p "$there/by-hash/SHA256"
    for file in "$from"/Packages*; do
        cp "$file" "$there/by-hash/SHA256/$(sha256sum "$file" | cut -d' ' -f1)"
    done
    cp "$from"/Packages* "$there/"
    # Nobody reads lists of a month ago any more.
    find "$there/by-hash" -type f -mtime +30 -delete
done
for file in Release.gpg Release InRelease; do
    cp "$fresh/$file" "$dist/$file.new"
    mv "$dist/$file.new" "$dist/$file"
done
gpg --batch --yes --armor --export "$fingerprint" >"$to/hb-archive-keyring.asc"
cat >"$to/hb.sources" <<SOURCES
Types: deb
URIs: $url
Suites: stable
Components: main
Signed-By: /etc/apt/keyrings/hb-archive-keyring.asc
SOURCES
say "$to: $(grep -c '^Package:' "$dist/main/binary-amd64/Packages") packages for amd64, $(grep -c '^Package:' "$dist/main/binary-arm64/Packages" || true) for arm64, signed by $fingerprint${valid_days:+, good for $valid_days days}"
