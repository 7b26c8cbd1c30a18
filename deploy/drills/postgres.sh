#!/usr/bin/env bash
# Loses PostgreSQL's disk under load: restores a base backup and the archived WAL, first to a moment in the middle
# of the load, then to the end. Prints what was lost (RPO) and how long it took (RTO). Needs nothing that runs:
# everything is in a temporary folder, on loopback.
#
#   SOTTO=target/release/sotto SECONDS_OF_LOAD=6 deploy/drills/postgres.sh             the WAL is archived by segments
#   STREAM=1 deploy/drills/postgres.sh                                                 each commit waits for a copy
#
# A segment is archived when it is full or archive_timeout has passed: what is not yet archived is lost. With
# STREAM=1, pg_receivewal is a synchronous standby: what is acknowledged is in the copy.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

bin=
for candidate in $(compgen -G '/usr/lib/postgresql/*/bin' | sort -V) $(dirname "$(command -v pg_basebackup || echo /)"); do
    if [[ -x $candidate/initdb && -x $candidate/pg_basebackup && -x $candidate/pg_receivewal ]]; then bin=$candidate; fi
done
[[ -n $bin ]] || fail 'PostgreSQL is not installed'
as_owner=()
# The server refuses to run as root.
if ((EUID == 0)); then as_owner=(setpriv --reuid=postgres --regid=postgres --clear-groups --); fi
pg=$folder/pg
mkdir -m 700 "$pg"
if ((EUID == 0)); then chown postgres: "$pg"; fi
owner() { (cd / && "${as_owner[@]}" "$@"); }
owner mkdir -m 700 "$pg/archive" "$pg/stream"
port=$(free_port)
url="postgres://sotto@127.0.0.1:$port/postgres"

pg_control() {
    owner "$bin/pg_ctl" "$@" --wait --pgdata "$pg/data" --log "$pg/log" >/dev/null 2>&1
}
stop_database() {
    [[ -f $pg/data/postmaster.pid ]] && pg_control stop --mode immediate
}
psql() { "$bin/psql" --quiet --no-align --tuples-only "$url" --command "$1"; }

owner "$bin/initdb" --pgdata "$pg/data" --username sotto --auth trust --encoding UTF8 --locale C --no-sync >/dev/null
owner tee -a "$pg/data/postgresql.conf" >/dev/null <<SETTINGS
listen_addresses = '127.0.0.1'
port = $port
unix_socket_directories = ''
max_wal_size = '4GB'
archive_mode = on
archive_timeout = '1s'
archive_command = 'test ! -f $pg/archive/%f && cp %p $pg/archive/%f.new && sync $pg/archive/%f.new && mv $pg/archive/%f.new $pg/archive/%f'
SETTINGS
pg_control start || fail 'PostgreSQL did not start'
data=$folder/data
start_broker "$data" --database "$url"
keep_session
owner "$bin/pg_basebackup" --pgdata "$pg/base" --dbname "$url" --checkpoint fast --wal-method stream
# Kept apart: without the root key nothing in the backup opens.
cp -p "$data/root.key" "$folder/root.key"
if [[ -n ${STREAM:-} ]]; then
    owner "$bin/pg_receivewal" --directory "$pg/stream" --dbname "$url application_name=drill" --synchronous --no-loop 2>>"$folder/receivewal.log" &
    background+=("$!")
    psql "ALTER SYSTEM SET synchronous_standby_names = 'pg_receivewal'" && psql 'SELECT pg_reload_conf()' >/dev/null
fi
step 'base backup; load begins'
start_load
sleep "$(awk -v s="$seconds" 'BEGIN { print s / 2 }')"
middle=$(now)
middle_utc=$(date -u -d "@$middle" '+%F %T.%6N+00')
sleep "$(awk -v s="$seconds" 'BEGIN { print s / 2 }')"

# The machine is gone, all at once.
kill -KILL "$(head -1 "$pg/data/postmaster.pid")"
sleep 0.3
owner rm -rf "$pg/data"
kill_broker
lost_at=$(now)
step 'the disk is gone'
end_load

# restore [SETTING]
restore() {
    owner cp -rp "$pg/base" "$pg/data"
    # A segment that was being streamed counts as well.
    owner tee -a "$pg/data/postgresql.conf" >/dev/null <<SETTINGS
restore_command = 'cp $pg/archive/%f %p || cp $pg/stream/%f %p || cp $pg/stream/%f.partial %p'
recovery_target_action = 'promote'
archive_mode = off
synchronous_standby_names = ''
$1
SETTINGS
    owner touch "$pg/data/recovery.signal"
    pg_control start || { tail -5 "$pg/log" >&2; fail 'PostgreSQL did not recover'; }
    local tries
    for ((tries = 0; tries < 400; tries++)); do
        [[ $(psql 'SELECT pg_is_in_recovery()' 2>/dev/null) == f ]] && return
        sleep 0.05
    done
    fail 'recovery did not end'
}

restore ''
step "restored to the end of the archive: $(verify_store --database "$url" --data "$data")"
"$sotto" store restored --database "$url" --data "$data" >/dev/null
start_broker "$data" --database "$url"
rto=$(since "$lost_at")
step 'ready'
read_back
measure_loss
step "a session was given $(wc -l <"$folder/got-numbers.txt") messages"
((lost < acknowledged)) || fail 'nothing came back'
kill_broker

# The same backup, to a moment: as after a mistake that is to be undone.
stop_database
owner rm -rf "$pg/data"
restore "recovery_target_time = '$middle_utc'"
held=$(psql 'SELECT count(*) FROM messages')
# Of what was sent well before the moment all is there; of what was sent after it nothing.
before=$(awk -v at="$middle" 'FILENAME == ARGV[1] { ack[$1] = 1; next } ($1 in ack) && $2 < at - 0.5' \
    "$folder/acknowledged.txt" "$folder/sent.txt" | wc -l)
until=$(awk -v at="$middle" '$2 <= at' "$folder/sent.txt" | wc -l)
((before <= held && held <= until)) || fail "$held messages at the moment; between $before and $until are expected"
step "restored to the middle of the load, $held messages: $(verify_store --database "$url" --data "$data")"
report
