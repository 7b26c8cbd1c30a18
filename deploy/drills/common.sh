# What both drills share. Sourced.

set -euo pipefail

fail() { printf 'drill: %s\n' "$1" >&2; exit 1; }
step() { printf '%7.1f s  %s\n' "$(since "$started")" "$1"; }
now() { printf '%s' "$EPOCHREALTIME"; }
since() { awk -v from="$1" -v to="$(now)" 'BEGIN { printf "%.3f", to - from }'; }

for program in mosquitto_pub mosquitto_sub awk curl; do
    command -v "$program" >/dev/null || fail "$program is not installed"
done
sotto=${SOTTO:-target/release/sotto}
[[ -x $sotto ]] || fail "no binary $sotto: build it, or name one in SOTTO"
sotto=$(realpath "$sotto")
seconds=${SECONDS_OF_LOAD:-6}
started=$(now)

folder=$(mktemp -d -t sotto-drill-XXXXXX)
chmod 711 "$folder"
background=()
cleanup() {
    local pid
    for pid in "${background[@]}"; do kill -KILL "$pid" 2>/dev/null || true; done
    if declare -F stop_database >/dev/null; then stop_database || true; fi
    rm -rf "$folder"
}
trap cleanup EXIT

# A port that nobody listens on, below those that the kernel hands out.
free_port() {
    local port
    while :; do
        port=$((10000 + RANDOM % 20000))
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { printf '%s' "$port"; return; }
    done
}
mqtt=$(free_port) mqtts=$(free_port) wss=$(free_port) private=$(free_port)

# start_broker DATA [FLAG ...]: returns when it is ready.
start_broker() {
    local data=$1
    shift
    "$sotto" serve --lab --plain "127.0.0.1:$mqtt" --mqtts "127.0.0.1:$mqtts" --wss "127.0.0.1:$wss" \
        --private "127.0.0.1:$private" --data "$data" "$@" >>"$folder/broker.log" 2>&1 &
    broker=$!
    # Its end is wanted, and not told.
    disown "$broker"
    background+=("$broker")
    local tries
    for ((tries = 0; tries < 1200; tries++)); do
        if curl -fs "http://127.0.0.1:$private/health/ready" >/dev/null; then return; fi
        kill -0 "$broker" 2>/dev/null || { tail -5 "$folder/broker.log" >&2; fail 'the broker did not start'; }
        sleep 0.05
    done
    fail 'the broker did not become ready'
}

kill_broker() {
    kill -KILL "$broker"
    while kill -0 "$broker" 2>/dev/null; do sleep 0.01; done
}

# A session that is offline and for which every message is kept.
keep_session() {
    mosquitto_sub -h 127.0.0.1 -p "$mqtt" -V 5 -i drill-keeper -c -x 3600 -q 1 -t drill -E
}

# Publishes numbered messages with their time, QoS 1, until the load ends. Each line of sent.txt is a message, in
# order; acknowledged.log names those that were acknowledged.
start_load() {
    mkfifo "$folder/lines"
    mosquitto_pub -h 127.0.0.1 -p "$mqtt" -V 5 -i drill-load -q 1 -t drill -l -d <"$folder/lines" \
        >"$folder/acknowledged.log" 2>/dev/null &
    publisher=$!
    (
        exec >"$folder/lines"
        for ((number = 1; number < 65535; number++)); do
            line="$number $EPOCHREALTIME"
            printf '%s\n' "$line" >>"$folder/sent.txt"
            printf '%s\n' "$line"
            sleep 0.002
        done
    ) 2>/dev/null &
    writer=$!
    background+=("$publisher" "$writer")
}

# Before another broker is there: the publisher would go on with that one.
end_load() {
    kill -KILL "$publisher" "$writer" 2>/dev/null || true
    wait "$publisher" "$writer" 2>/dev/null || true
    # The n-th message of the one client has the packet identifier n.
    sed -nE 's/.*received PUBACK \(Mid: ([0-9]+).*/\1/p' "$folder/acknowledged.log" | sort -n -u >"$folder/acknowledged.txt"
    acknowledged=$(wc -l <"$folder/acknowledged.txt")
    ((acknowledged > 0)) || fail 'nothing was acknowledged'
}

# What the kept session is given by the broker that serves now.
read_back() {
    timeout 20 mosquitto_sub -h 127.0.0.1 -p "$mqtt" -V 5 -i drill-keeper -c -x 3600 -q 1 -t drill -W 3 \
        >"$folder/got.txt" 2>/dev/null || true
    awk '$1 ~ /^[0-9]+$/ { print $1 }' "$folder/got.txt" | sort -n -u >"$folder/got-numbers.txt"
}

# Compares what was acknowledged with what came back; sets lost and lost_seconds.
measure_loss() {
    sort "$folder/acknowledged.txt" >"$folder/a"
    sort "$folder/got-numbers.txt" >"$folder/b"
    comm -23 "$folder/a" "$folder/b" | sort -n >"$folder/lost.txt"
    lost=$(wc -l <"$folder/lost.txt")
    lost_seconds=$(awk '
        FILENAME == ARGV[1] { sent[$1] = $2; next }
        { if (!first) first = $1; last = $1 }
        END { printf "%.2f", first ? sent[last] - sent[first] : 0 }' "$folder/sent.txt" "$folder/lost.txt")
    # Only the end may be missing: a hole would be a message lost on the way.
    local last_got first_lost
    last_got=$(tail -1 "$folder/got-numbers.txt")
    first_lost=$(head -1 "$folder/lost.txt")
    if [[ -n $first_lost && -n $last_got ]] && ((first_lost < last_got)); then
        fail "message $first_lost is missing although $last_got is there"
    fi
}

verify_store() {
    "$sotto" store verify "$@" >"$folder/verify.txt" || { head -40 "$folder/verify.txt" >&2; fail 'the restored store is damaged'; }
    tail -1 "$folder/verify.txt"
}

report() {
    printf '\nacknowledged %d messages in %s s of load\n' "$acknowledged" "$seconds"
    printf 'RPO          %d acknowledged messages, %s s\n' "$lost" "$lost_seconds"
    printf 'RTO          %s s from the loss to ready\n' "$rto"
}
