# shellcheck shell=bash
# Sourced by scripts/check-deploy.sh: a cluster under load, watched by a real Prometheus with the real
# rules; then Redis dies.
# shellcheck disable=SC2154 # $work and $tools are those of the script that sources this.

step live: a cluster, load, and Prometheus
scripts/install-test-deps.sh
if [[ -z ${ROOKERY_BIN:-} ]]; then
    cargo build --locked -p rookery -p rookery-loadtest
    ROOKERY_BIN=$PWD/${CARGO_TARGET_DIR:-target}/debug/rookery
    LOADTEST_BIN=$PWD/${CARGO_TARGET_DIR:-target}/debug/rookery-loadtest
fi

# PostgreSQL's user must reach the folder, so it is not in $work.
cluster=$(mktemp -d /var/tmp/rookery-check.XXXXXX)
chmod 755 "$cluster"
ROOKERY_BIN=$ROOKERY_BIN ROOKERY_CLUSTER_DIR=$cluster ROOKERY_RATES_ENABLED=false \
    scripts/cluster.sh >"$work/cluster.log" 2>&1 &
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
until_true 120 "the cluster" grep -q 'The cluster is ready' "$work/cluster.log"
field() { awk -v name="$1" -v field="$2" '$1 ~ name { print $field }' "$work/cluster.log"; }

# The load goes past nginx, whose job is looked at elsewhere: each node gets its part.
targets=()
for address in $(field '^node-[0-9]+$' 2); do targets+=(--target "http://$address"); done
"$LOADTEST_BIN" direct "${targets[@]}" --users 60 --rate 60 --marks --warmup 2 --seconds 500 >"$work/load.log" 2>&1 &
load=$!
pids+=("$load")

mkdir "$work/prometheus"
cp deploy/prometheus/*.rules.yml "$work/prometheus/"
ops=$(field '^node-[0-9]+$' 3 | sed 's/.*/"&"/' | paste -s -d ,)
# The real file, with this cluster's addresses, and no other job.
sed -e "s/\[\"node1:9090\", .*\]/[$ops]/" -e 's/: 10s/: 1s/' -e '/job_name: prometheus/,$d' \
    deploy/prometheus/prometheus.yml >"$work/prometheus/prometheus.yml"
prometheus --config.file="$work/prometheus/prometheus.yml" --storage.tsdb.path="$work/tsdb" \
    --web.listen-address=127.0.0.1:19090 >"$work/prometheus.log" 2>&1 &
pids+=($!)
url=http://127.0.0.1:19090
live=("$tools/venv/bin/python" deploy/checks/live.py)
for address in $(field '^node-[0-9]+$' 3); do curl -fsS "http://$address/metrics" | promtool check metrics; done

step live: every expression returns data
expressions() { "${live[@]}" expressions $url >"$work/expressions.log" 2>&1; }
end=$((SECONDS + 120))
until expressions; do
    [[ $SECONDS -lt $end ]] || { cat "$work/load.log" "$work/expressions.log"; fail "some expressions return nothing"; }
    sleep 2
done
cat "$work/expressions.log"
firing=$("${live[@]}" alerts $url)
[[ -z $firing ]] || fail "alerts fire in a healthy cluster: $firing"
kill -0 "$load" 2>/dev/null || { cat "$work/load.log"; fail "the load ended early"; }

step live: Redis dies, and that alone is said
kill -9 "$(field '^redis$' 4)"
fires() { [[ $("${live[@]}" alerts $url) == *RookeryRedisAway* ]]; }
until_true 180 RookeryRedisAway fires
# Whatever else would follow from it has its time, too.
for _ in $(seq 60); do
    firing=$("${live[@]}" alerts $url)
    [[ $firing == RookeryRedisAway ]] || fail "expected RookeryRedisAway alone, but these fire: $firing"
    sleep 1
done
kill -0 "$load" 2>/dev/null || { cat "$work/load.log"; fail "the load ended early"; }
echo "RookeryRedisAway fires, and nothing else"
