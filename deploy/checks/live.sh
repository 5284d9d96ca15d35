# shellcheck shell=bash
# Sourced by scripts/check-deploy.sh: a cluster under load, watched by a real Prometheus with the real
# rules; every node is restarted in turn; then Redis dies. Most of the time goes by in waiting: alerts
# want what they tell of to last for a minute, and these are the rules as they are.
# shellcheck disable=SC2154 # $work and $tools are those of the script that sources this.

step live: a cluster, load, and Prometheus
scripts/install-test-deps.sh
debian promtool=prometheus curl=curl
python
if [[ -z ${ROOKERY_BIN:-} ]]; then
    cargo build --locked -p rookery -p rookery-loadtest
    ROOKERY_BIN=$PWD/${CARGO_TARGET_DIR:-target}/debug/rookery
    LOADTEST_BIN=$PWD/${CARGO_TARGET_DIR:-target}/debug/rookery-loadtest
fi

# Over which a node sends its sockets away: long enough to be seen at one look a second.
window=5
# PostgreSQL's user must reach the folder, so it is not in $work.
cluster=$(mktemp -d /var/tmp/rookery-check.XXXXXX)
chmod 755 "$cluster"
: >"$work/cluster.log"
NODES=3 ROOKERY_BIN=$ROOKERY_BIN ROOKERY_CLUSTER_DIR=$cluster ROOKERY_RATES_ENABLED=false \
    ROOKERY_DRAIN_WINDOW_SECONDS=$window scripts/cluster.sh >>"$work/cluster.log" 2>&1 &
pids+=($!)
# until_true SECONDS WHAT COMMAND...
until_true() {
    local end=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        [[ $SECONDS -lt $end ]] || { cat "$work/cluster.log" >&2; fail "waited in vain for $what"; }
        sleep 0.5
    done
}
# The last line that it prints.
until_true 120 "the cluster" grep -q '^A node that ends comes back' "$work/cluster.log"
# field ROW COLUMN: of the table that the cluster begins with.
field() { awk -v name="^$1\$" -v field="$2" '$1 ~ name { print $field }' "$work/cluster.log"; }
mapfile -t nodes < <(field 'node-[0-9]+' 1)
[[ ${#nodes[@]} -eq 3 ]] || { cat "$work/cluster.log" >&2; fail "expected 3 nodes, found ${#nodes[@]}"; }

# load SECONDS: pairs of users write to each other, by way of nginx, and come back when they are
# sent away.
load() {
    : >"$work/load.log"
    "$LOADTEST_BIN" direct --target "http://$(field nginx 2)" --users 150 --rate 60 --marks --warmup 1 \
        --seconds "$1" >"$work/load.log" 2>&1 &
    load=$!
    pids+=("$load")
    until_true 60 "load" grep -q '^measuring' "$work/load.log"
}
still_loaded() { kill -0 "$load" 2>/dev/null || { cat "$work/load.log"; fail "the load ended early"; }; }
# Its oracle has seen every message and every acknowledgement.
load_was_well() {
    wait "$load" || { cat "$work/load.log"; fail "the load test is not content"; }
    sed -n '/ sent, /,/ oracle /p' "$work/load.log"
}

mkdir "$work/prometheus"
cp deploy/prometheus/*.rules.yml "$work/prometheus/"
ops=$(field 'node-[0-9]+' 3 | sed 's/.*/"&"/' | paste -s -d ,)
# The real file, with this cluster's addresses, and no other job.
sed -e "s/\[\"node1:9090\", .*\]/[$ops]/" -e 's/: 10s/: 1s/' -e '/job_name: prometheus/,$d' \
    deploy/prometheus/prometheus.yml >"$work/prometheus/prometheus.yml"
port=19090
while (exec 8<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do port=$((port + 1)); done
url=http://127.0.0.1:$port
prometheus --config.file="$work/prometheus/prometheus.yml" --storage.tsdb.path="$work/tsdb" \
    --web.listen-address="127.0.0.1:$port" >"$work/prometheus.log" 2>&1 &
prometheus=$!
pids+=("$prometheus")
prometheus_ready() {
    kill -0 "$prometheus" 2>/dev/null || { cat "$work/prometheus.log" >&2; fail "Prometheus has ended"; }
    curl -fs -o /dev/null "$url/-/ready"
}
until_true 60 Prometheus prometheus_ready
live=("$tools/venv/bin/python" deploy/checks/live.py)
# Longer than the expressions are waited for.
load 140
for address in $(field 'node-[0-9]+' 3); do curl -fsS "http://$address/metrics" | promtool check metrics; done

step live: every expression returns data
expressions() { "${live[@]}" expressions "$url" >"$work/expressions.log" 2>&1; }
end=$((SECONDS + 120))
until expressions; do
    [[ $SECONDS -lt $end ]] || { cat "$work/load.log" "$work/expressions.log"; fail "some expressions return nothing"; }
    sleep 2
done
cat "$work/expressions.log"
still_loaded
# It has served its end; the next part has the whole length of a new one.
kill "$load"
wait "$load" || true

step live: every node is restarted, and nobody is told
load 140
for name in "${nodes[@]}"; do
    ops=$(field "$name" 3)
    begun=$(date +%s)
    kill -TERM "$(field "$name" 4)"
    until_true 60 "$name to end" grep -q "^$name ended with status" "$work/cluster.log"
    grep -q "^$name ended with status 0;" "$work/cluster.log" || fail "$name did not drain to the end"
    until_true 60 "$name to be back" curl -fs -o /dev/null "http://$ops/readyz"
    "${live[@]}" spread "$url" "$ops" "$begun" $window
done
still_loaded
# Alerts that wait for a minute have it.
sleep 65
load_was_well
fired=$("${live[@]}" alerts "$url" 300)
[[ -z $fired ]] || fail "alerts fired in a cluster that was well: $fired"
echo "no alert has fired"

step live: Redis dies, and that alone is said
load 140
kill -9 "$(field redis 4)"
fires() { [[ $("${live[@]}" alerts "$url" 1) == *RookeryRedisAway* ]]; }
until_true 100 RookeryRedisAway fires
still_loaded
# Whatever else would follow from it has its time, too.
sleep 40
fired=$("${live[@]}" alerts "$url" 300)
[[ $fired == RookeryRedisAway ]] || fail "expected RookeryRedisAway alone, but these fired: $fired"
load_was_well
echo "RookeryRedisAway fires, and nothing else"
