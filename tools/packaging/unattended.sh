#!/usr/bin/env bash
# Hosts that enrol by themselves: the examples of docs/unattended.md, run by the real cloud-init at the first boot, and by the
# real Ansible.
part=unattended
. "$(dirname "$0")/lib.sh"

# example LANGUAGE FIRST-LINE: the block of the page that begins so.
example() {
    awk -v first="$2" -v fence="\`\`\`$1" '$0 == fence {getline; if ($0 == first) {on = 1}} /^```$/ {on = 0} on' docs/unattended.md
}

new_net
new_server tls
tell tokens create --uses 2 --expires 1h >"$work/token" 2>/dev/null

# A repository on the loopback of the same network.
export GNUPGHOME=$work/gpg
mkdir -m 700 "$GNUPGHOME"
trap 'code=$?; gpgconf --kill all 2>/dev/null; (exit $code); finish' EXIT
must gpg --batch --quiet --passphrase '' --quick-generate-key 'archive <archive@hb.invalid>' ed25519 sign never
must tools/apt-repo.sh --key archive@hb.invalid --to "$work/apt" --url http://127.0.0.1:8601 "$agent_old"
ip netns exec "$net" python3 -m http.server --bind 127.0.0.1 --directory "$work/apt" 8601 >"$work/http.log" 2>&1 &
children+=($!)

# --- cloud-init

new_root cloud1
rm "$root/etc/cloud/cloud-init.disabled" "$root"/etc/apt/sources.list
seed=$root/var/lib/cloud/seed/nocloud
mkdir -p "$seed"
example yaml '#cloud-config' >"$work/page.yaml"
[[ -s $work/page.yaml ]] || fail "the page has no example for cloud-init"
# The page's placeholders, and nothing else, are filled in.
python3 - "$work/page.yaml" "$work/apt/hb-archive-keyring.asc" "$work/token" "$url" "$pin" >"$seed/user-data" <<'PY'
import re, sys
page, key, token = (open(path, encoding="utf-8").read() for path in sys.argv[1:4])
indented = "\n".join("      " + line for line in key.strip().splitlines())
page, keys = re.subn(r"(?ms)^ {6}-----BEGIN PGP.*?-----END PGP PUBLIC KEY BLOCK-----", lambda _: indented, page)
assert keys == 1 and page.count("hbe_…") == 1 and page.count("https://hb.example.org:8443") == 1 and page.count("sha256:…") == 1
sys.stdout.write(page.replace("hbe_…", token.strip()).replace("https://hb.example.org:8443", sys.argv[4]).replace("sha256:…", sys.argv[5])
                 .replace("https://apt.example.org/hb", "http://127.0.0.1:8601"))
PY
printf 'instance-id: cloud1\nlocal-hostname: cloud1\n' >"$seed/meta-data"
printf 'datasource_list: [NoCloud]\nnetwork: {config: disabled}\nlocale: false\n' >"$root/etc/cloud/cloud.cfg.d/99-test.cfg"
cp "$seed/user-data" "$root/root/user-data"
said=$(chroot "$root" cloud-init schema --config-file /root/user-data 2>&1) || fail "cloud-init schema says: $said"
sed 's/^packages:.*/packages: 7/' "$seed/user-data" >"$root/root/user-data"
! chroot "$root" cloud-init schema --config-file /root/user-data >/dev/null 2>&1 || fail "the schema takes anything"
rm "$root/root/user-data"
ok "cloud-init: the example passes its schema"
# The system counts as booted when cloud-init has done all.
boot_s=180 boot
is_done() { [[ $(inside cloud-init status || true) =~ status:\ (done|error) ]]; }
wait_for 60 "cloud-init to end" is_done
[[ $(inside cloud-init status || true) == *'status: done'* ]] || fail "cloud-init says: $(inside cloud-init status --long || true; tail -n 30 "$root/var/log/cloud-init-output.log")"
wait_for 20 "the host to be up" state cloud1 up || fail "$(tail -n 30 "$root/var/log/cloud-init-output.log")"
# By the hashes of the lists, so that nobody is told of a mismatch while the repository is made anew.
grep -qE 'by-hash/SHA256/[0-9a-f]{64} HTTP/1.1" 200' "$work/http.log" || fail "apt did not ask by hash: $(cat "$work/http.log")"
! grep -q '" 404' "$work/http.log" || fail "the repository lacks something: $(cat "$work/http.log")"
[[ ! -e $root/root/hb-token ]] || fail "the token is still there"
tell status cloud1 --json 2>/dev/null | grep -E '"role": *"web"' >/dev/null || fail "the host has no tag"
is_active hb.service active || fail "the service does not run"
ok "cloud-init: a host that boots for the first time installs hb from the repository, enrols and beats; the token is gone"
cut_power

# --- Ansible

new_root ansible1
mv "$root"/etc/apt/sources.list "$work/"
mkdir "$root/root/play"
example yaml '- hosts: all' >"$root/root/play/play.yaml"
[[ -s $root/root/play/play.yaml ]] || fail "the page has no example for Ansible"
cp "$work/apt/hb-archive-keyring.asc" "$work/apt/hb.sources" "$root/root/play/"
printf 'vault_hb_token: "%s"\nhb_server: %s\nhb_pin: "%s"\n' "$(cat "$work/token")" "$url" "$pin" >"$root/root/play/vault.yaml"
boot --bind-ro="$PWD/.cache/ansible:/opt/ansible"
play() {
    inside PYTHONPATH=/opt/ansible ANSIBLE_NOCOLOR=1 ANSIBLE_PYTHON_INTERPRETER=/usr/bin/python3 python3 -c \
        'import sys; from ansible.cli.playbook import main; main(sys.argv)' \
        -i localhost, -c local -e @/root/play/vault.yaml /root/play/play.yaml 2>&1
}
play >"$work/said" || fail "Ansible says: $(cat "$work/said")"
grep -qE 'changed=[3-9] .*failed=0' "$work/said" || fail "Ansible says: $(tail -n 5 "$work/said")"
! grep -F "$(cat "$work/token")" "$work/said" >/dev/null || fail "Ansible shows the token"
wait_for 20 "the host to be up" state ansible1 up
ok "Ansible: the example installs hb, enrols the host, and it beats"
play >"$work/said" || fail "Ansible says: $(cat "$work/said")"
grep -qE 'changed=0 .*failed=0' "$work/said" || fail "Ansible, run again, says: $(cat "$work/said")"
ok "Ansible: run again, it changes nothing"
# And without Ansible's creates: register itself changes nothing.
cp "$work/token" "$root/root/token"
said=$(inside HB_SERVER="$url" HB_TOKEN_FILE=/root/token hb register 2>&1) || fail "register, run again, says: $said"
[[ $said == 'already enrolled as ansible1 '* ]] || fail "register, run again, says: $said"
ok "hb register, run again, says so, changes nothing and exits with 0"
