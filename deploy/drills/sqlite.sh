#!/usr/bin/env bash
# Loses the embedded store's disk under load and serves from a backup. Prints what was lost (RPO) and how long it
# took (RTO). Needs nothing that runs: everything is in a temporary folder, on loopback.
#
#   SOTTO=target/release/sotto SECONDS_OF_LOAD=6 deploy/drills/sqlite.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

data=$folder/data
safe=$folder/safe
mkdir -m 700 "$data" "$safe"
start_broker "$data"
keep_session
# Once, when the broker has made them; apart from the backups.
cp -p "$data"/{root.key,ca.crt,ca.key,server.crt,server.key,admin.token} "$safe"/
step 'load begins'
start_load
sleep "$(awk -v s="$seconds" 'BEGIN { print s / 2 }')"
"$sotto" store backup --data "$data" --to "$safe/sotto.db" >"$folder/backup.txt"
step "backup beside the load: $(head -1 "$folder/backup.txt" | sed 's/.*: //')"
sleep "$(awk -v s="$seconds" 'BEGIN { print s / 2 }')"

kill_broker
rm -rf "$data"
lost_at=$(now)
step 'the disk is gone'
end_load
cp -rp "$safe" "$data"
step "restored: $(verify_store --data "$data")"
start_broker "$data"
rto=$(since "$lost_at")
step 'ready'
read_back
measure_loss
verify_store --data "$data" >/dev/null
step "a session was given $(wc -l <"$folder/got-numbers.txt") messages"
((lost < acknowledged)) || fail 'nothing came back'
report
