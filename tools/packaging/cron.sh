#!/usr/bin/env bash
# A host without systemd: the package installs, and a real cron sends the beats by the example that the package brings.
part=cron
. "$(dirname "$0")/lib.sh"

new_root cron1
must chroot "$root" sh -c 'dpkg --purge cloud-init libnss-systemd libpam-systemd dbus systemd-sysv 2>&1
    dpkg --purge --force-remove-essential --force-depends systemd && dpkg -i /root/systemd-standalone-sysusers_*.deb
    rm -rf /run/systemd /lib/systemd/systemd'
[[ ! -e $root/usr/bin/systemctl ]] || fail "the root still has systemd"
must chroot "$root" dpkg -i "/debs/$(basename "$agent_old")"
chroot "$root" getent passwd _hb >/dev/null || fail "there is no account _hb"
ok "installs without systemd, with its account"

new_net
new_server
tell tokens create --uses 1 --expires 1h >"$work/token" 2>/dev/null
cp "$work/token" "$root/root/token"
# As a process of the host would run: on its network, with its own processes and an environment of its own.
host=(ip netns exec "$net" unshare --mount --pid --fork --kill-child chroot "$root"
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root sh -c)
run() { "${host[@]}" "mount -t proc proc /proc; $*"; }
run "HB_SERVER=$url hb register --name cron1 --token-file /root/token --interval 2m --grace 4m" >"$work/said" 2>&1 \
    || fail "register says: $(cat "$work/said")"
rm "$root/root/token"
seq_of() { run hb beat --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["seq"])'; }
first=$(seq_of)
ok "enrolled without a service"

# The line of the example, at every minute, and mail into a file.
line=$(grep -E '^[^#]*/usr/bin/hb beat' "$root/usr/share/doc/hb/examples/cron")
[[ $line == '*/5 * * * * root '* ]] || fail "the example's line is $line"
sed 's|^\*/5|*|' "$root/usr/share/doc/hb/examples/cron" >"$root/etc/cron.d/hb"
cat >"$root/usr/sbin/sendmail" <<'MAIL'
#!/bin/sh
cat >"/var/mail-$(date +%s)"
MAIL
chmod 755 "$root/usr/sbin/sendmail"
# A process of the host, by its unshare, which ignores what is milder; its child outlives it when it has changed its account.
end() { pkill -9 -P "$1" || true; kill -9 "$1" || true; wait "$1" || true; } 2>/dev/null
mails() { ls "$root"/var/mail-* 2>/dev/null || true; }
"${host[@]}" 'mount -t proc proc /proc; exec cron -f -L 15' >"$work/cron.log" 2>&1 &
children+=($!)
cron_beat() { [[ $(seq_in_journal) -gt $first ]]; }
seq_in_journal() { strings_of "$root/var/lib/hb/journal"; }
strings_of() { tr -d '\0' <"$1" | grep -aoE '"seq":[0-9]+' | cut -d: -f2 | sort -n | tail -n 1; }
wait_for 75 "cron to beat" cron_beat
wait_for 10 "the host to be up" state cron1 up
sleep 1
[[ -z $(mails) ]] || fail "cron mailed on success: $(cat $(mails))"
[[ $(stat -c %U:%a "$root/var/lib/hb/journal") == "$(stat -c %U "$root/var/lib/hb"):600" ]] || fail "the journal is not the account's"
[[ $(chroot "$root" stat -c %U /var/lib/hb/journal) == _hb ]] || fail "the journal does not belong to _hb"
ok "cron beats by the example, quietly, as _hb"

stop_server
has_mail() { [[ -n $(mails) ]]; }
wait_for 80 "the mail of cron" has_mail
sleep 1
body=$(sed '1,/^$/d' $(mails | head -n 1))
[[ $(wc -l <<<"$body") == 1 && $body == 'error: '*'; hint: '* ]] || fail "the mail of cron is: $body"
grep -q '^To: root' $(mails | head -n 1) || fail "the mail goes to somebody else"
ok "and mails one line when the server does not answer: $body"
code=0
run hb beat >"$work/said" 2>&1 || code=$?
[[ $code == 69 ]] || fail "hb beat without a server exits with $code"
end "${children[-1]}"
start_server
run hb beat >"$work/said" 2>&1 || fail "$(cat "$work/said")"
[[ ! -s $work/said ]] || fail "hb beat is not quiet: $(cat "$work/said")"
ok "hb beat by hand: 69 without a server, 0 and quiet with one"

# The daemon holds the lock: a beat from cron has the daemon beat.
"${host[@]}" 'mount -t proc proc /proc; exec hb agent' >"$work/agent.log" 2>&1 &
children+=($!)
wait_for 20 "the agent" grep -q 'the first beat is stored' "$work/agent.log"
code=0
run hb beat >"$work/said" 2>&1 || code=$?
[[ $code == 0 && ! -s $work/said ]] || fail "hb beat beside the agent exits with $code: $(cat "$work/said")"
state cron1 up || fail "the beat from cron has disturbed the agent"
! tell status cron1 --json | grep -i clone >/dev/null || fail "the beat from cron looks like a clone"
ok "hb beat beside a running agent: the agent beats, quiet, nothing disturbed"
# Where systemd runs, the example's line leaves the beats to the service.
mkdir -p "$root/run/systemd/system"
run "$(cut -d' ' -f7- <<<"$line")" >"$work/said" 2>&1 || fail "the example's line fails under systemd: $(cat "$work/said")"
[[ ! -s $work/said ]] || fail "the example's line is not quiet under systemd: $(cat "$work/said")"
rmdir "$root/run/systemd/system"
ok "the example's line does nothing where systemd runs"

end "${children[-1]}"
must chroot "$root" dpkg -P hb
[[ ! -e $root/etc/hb && ! -e $root/var/lib/hb ]] || fail "purging left behind: $(ls -d "$root/etc/hb" "$root/var/lib/hb" 2>/dev/null)"
run "$(cut -d' ' -f7- <<<"$line")" >"$work/said" 2>&1 || fail "the example's line fails without the package: $(cat "$work/said")"
[[ ! -s $work/said ]] || fail "the example's line is not quiet without the package: $(cat "$work/said")"
ok "purge: nothing is left, and a forgotten line in cron.d stays quiet"
