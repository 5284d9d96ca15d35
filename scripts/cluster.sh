#!/usr/bin/env bash
# A whole cluster on this machine: PostgreSQL, Redis, several nodes, nginx in front. Ctrl-C stops
# it; the data stays in the folder for the next time.
#
#   NODES                 how many nodes (3)
#   HTTP_PORT             where nginx listens (8080, or the next free port)
#   ROOKERY_CLUSTER_DIR   the folder for data and logs (data/cluster)
#   ROOKERY_BIN           run this binary instead of building one
#
# Variables that begin with ROOKERY_ reach the nodes: ROOKERY_RATES_ENABLED=false for load tests.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$@"; }
fail() { printf 'cluster: %s\n' "$*" >&2; exit 1; }

nodes=${NODES:-3}
[[ $nodes =~ ^[1-9][0-9]?$ ]] || fail "NODES must be a number from 1 to 99, not '$nodes'."

# --- What must be there ------------------------------------------------------------------------

PATH=$PATH:/usr/sbin:/sbin
postgres_bin=$(dirname "$(compgen -G '/usr/lib/postgresql/*/bin/initdb' | sort -V | tail -n 1)")
if [[ $postgres_bin == . ]] && command -v initdb >/dev/null; then
    postgres_bin=$(dirname "$(command -v initdb)")
fi
missing=()
[[ $postgres_bin != . ]] || missing+=(PostgreSQL)
command -v redis-server >/dev/null || missing+=(Redis)
command -v nginx >/dev/null || missing+=(nginx)
command -v setpriv >/dev/null || missing+=("setpriv (util-linux)")
[[ ${#missing[@]} -eq 0 ]] ||
    fail "not installed: ${missing[*]}. Run scripts/install-test-deps.sh as root, or install them."

if [[ -z ${ROOKERY_BIN:-} ]]; then
    command -v cargo >/dev/null || fail "cargo is missing: install Rust from https://rustup.rs."
    cargo build --release --locked
    ROOKERY_BIN=${CARGO_TARGET_DIR:-target}/release/rookery
fi
[[ -x $ROOKERY_BIN ]] || fail "$ROOKERY_BIN is not a program."

# --- The folder --------------------------------------------------------------------------------

dir=${ROOKERY_CLUSTER_DIR:-data/cluster}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
mkdir -p "$dir/log" "$dir/nginx" "$dir/redis" "$dir/postgres"

exec 9>"$dir/lock"
flock -n 9 || fail "another cluster runs in $dir: stop it, or set ROOKERY_CLUSTER_DIR to another folder."

# PostgreSQL refuses to run as root.
as_postgres=()
nginx_user=
if [[ $(id -u) -eq 0 ]]; then
    id postgres >/dev/null 2>&1 || fail "the user postgres is missing: install the package postgresql."
    as_postgres=(--reuid=postgres --regid=postgres --init-groups)
    nginx_user=" user root;"
    chown postgres: "$dir/postgres"
    setpriv "${as_postgres[@]}" test -w "$dir/postgres" ||
        fail "the user postgres cannot reach $dir/postgres: set ROOKERY_CLUSTER_DIR to a folder that it can, for instance /var/tmp/rookery."
fi

if [[ ! -s $dir/jwt_secret ]]; then
    (umask 077 && head -c 48 /dev/urandom | base64 -w 0 >"$dir/jwt_secret")
fi

# --- Ports -------------------------------------------------------------------------------------

in_use() { (exec 8<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
next_port=0
# Sets `port` to the first free one from $1 upwards that was not given out before.
free_port() {
    port=$(($1 > next_port ? $1 : next_port))
    while in_use "$port"; do port=$((port + 1)); done
    next_port=$((port + 1))
}
if [[ -n ${HTTP_PORT:-} ]]; then
    if in_use "$HTTP_PORT"; then fail "port $HTTP_PORT is taken: choose another HTTP_PORT."; fi
    http_port=$HTTP_PORT
else
    free_port 8080
    http_port=$port
fi
free_port 18080
redis_port=$port
free_port 18081
postgres_port=$port

# --- Starting and stopping ---------------------------------------------------------------------

declare -A pids=()
declare -A restart_at=()

# start NAME SIGNAL [setpriv options] -- COMMAND: in a session of its own, so that Ctrl-C reaches
# only this script, which stops things in order; SIGNAL comes if the script is killed.
start() {
    local name=$1 signal=$2 options=()
    shift 2
    while [[ $1 != -- ]]; do options+=("$1"); shift; done
    shift
    setsid setpriv "${options[@]}" --pdeathsig "$signal" -- "$@" \
        </dev/null >>"$dir/log/$name.log" 2>&1 9>&- &
    pids[$name]=$!
}

running() { [[ -n ${pids[$1]:-} ]] && kill -0 "${pids[$1]}" 2>/dev/null; }

# stop SIGNAL SECONDS NAME...: all at once, by force when the time is over.
stop() {
    local signal=$1 left=$(($2 * 10)) name
    shift 2
    for name in "$@"; do
        if running "$name"; then kill -s "$signal" "${pids[$name]}" 2>/dev/null || true; fi
    done
    for name in "$@"; do
        while running "$name" && [[ $left -gt 0 ]]; do sleep 0.1; left=$((left - 1)); done
        if running "$name"; then
            say "$name does not stop, killing it"
            kill -s KILL "${pids[$name]}" 2>/dev/null || true
        fi
        unset "pids[$name]"
    done
}

node_names=()
for ((i = 1; i <= nodes; i++)); do node_names+=("node-$i"); done

stop_all() {
    local status=$?
    # A second Ctrl-C does not wait.
    trap - EXIT
    trap 'kill -s KILL "${pids[@]}" 2>/dev/null; exit 130' INT TERM
    if [[ ${#pids[@]} -gt 0 ]]; then
        say "" "Stopping the nodes, then nginx, Redis and PostgreSQL …"
        stop TERM 30 "${node_names[@]}"
        stop TERM 5 nginx
        stop TERM 5 redis
        stop INT 20 postgres
    fi
    exit "$status"
}
trap stop_all EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# wait_for NAME COMMAND...: until the command succeeds.
wait_for() {
    local name=$1
    shift
    for ((i = 0; i < 600; i++)); do
        if "$@" 2>/dev/null; then return; fi
        if ! running "$name"; then
            tail -n 15 "$dir/log/$name.log" >&2
            fail "$name ended while starting; see $dir/log/$name.log."
        fi
        sleep 0.1
    done
    fail "$name is not ready after a minute; see $dir/log/$name.log."
}

ready() {
    local status
    exec 8<>"/dev/tcp/127.0.0.1/$1" || return 1
    printf 'GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&8
    read -r -t 5 status <&8 || status=
    exec 8>&-
    [[ $status == *" 200"* ]]
}

# --- PostgreSQL and Redis ----------------------------------------------------------------------

if [[ ! -s $dir/postgres/data/PG_VERSION ]]; then
    setpriv "${as_postgres[@]}" "$postgres_bin/initdb" -D "$dir/postgres/data" -U rookery -A trust \
        -E UTF8 --locale=C.UTF-8 >"$dir/log/initdb.log" 2>&1 ||
        fail "PostgreSQL's data folder could not be made; see $dir/log/initdb.log."
fi
# A pool of 20 for each node, and some for people.
start postgres INT "${as_postgres[@]}" -- "$postgres_bin/postgres" -D "$dir/postgres/data" \
    -c "port=$postgres_port" -c listen_addresses=127.0.0.1 -c unix_socket_directories= \
    -c "max_connections=$((nodes * 25 + 20))"
start redis TERM -- redis-server --port "$redis_port" --bind 127.0.0.1 --dir "$dir/redis" \
    --save "" --appendonly no --maxmemory-policy noeviction \
    --client-output-buffer-limit pubsub 256mb 64mb 60
wait_for postgres "$postgres_bin/pg_isready" -q -h 127.0.0.1 -p "$postgres_port"
wait_for redis in_use "$redis_port"

psql=("$postgres_bin/psql" -XAtq -h 127.0.0.1 -p "$postgres_port" -U rookery -d postgres)
if [[ $("${psql[@]}" -c "SELECT 1 FROM pg_database WHERE datname = 'rookery'") != 1 ]]; then
    "${psql[@]}" -c 'CREATE DATABASE rookery'
fi

# --- Nodes and nginx ---------------------------------------------------------------------------

listen_ports=() ops_ports=() upstreams=
for ((i = 0; i < nodes; i++)); do
    free_port 18090
    listen_ports+=("$port")
    upstreams+="server 127.0.0.1:$port max_fails=0; "
    free_port 18090
    ops_ports+=("$port")
done

# A drain leaves time for a load balancer to look away and for clients to spread; on one machine
# a second or two will do.
start_node() {
    local name=node-$(($1 + 1))
    mkdir -p "$dir/$name"
    DATABASE_URL=postgres://rookery@127.0.0.1:$postgres_port/rookery \
        REDIS_URL=redis://127.0.0.1:$redis_port \
        JWT_SECRET=$(<"$dir/jwt_secret") \
        LISTEN_ADDR=127.0.0.1:${listen_ports[$1]} \
        OPS_ADDR=127.0.0.1:${ops_ports[$1]} \
        NODE_ID=$name \
        TRUSTED_PROXIES=127.0.0.1/32 \
        DATA_DIR=$dir/$name \
        ROOKERY_DRAIN_DELAY_SECONDS=${ROOKERY_DRAIN_DELAY_SECONDS:-1} \
        ROOKERY_DRAIN_WINDOW_SECONDS=${ROOKERY_DRAIN_WINDOW_SECONDS:-2} \
        start "$name" TERM -- "$ROOKERY_BIN" serve
}
for ((n = 0; n < nodes; n++)); do start_node "$n"; done
for ((n = 0; n < nodes; n++)); do wait_for "node-$((n + 1))" ready "${ops_ports[n]}"; done

config=$(<deploy/nginx/rookery.conf.template)
config=${config//"\${ROOKERY_LISTEN}"/127.0.0.1:$http_port}
config=${config//"\${ROOKERY_UPSTREAMS}"/$upstreams}
config=${config//"\${ROOKERY_RUN_DIR}"/$dir/nginx}
printf '%s\n' "$config" >"$dir/nginx/nginx.conf"
start nginx TERM -- nginx -e stderr -c "$dir/nginx/nginx.conf" -p "$dir/nginx" -g "daemon off;$nginx_user"
wait_for nginx in_use "$http_port"

# --- What runs ---------------------------------------------------------------------------------

# A call of the load test that knows where the nodes are and whose CPU counts.
load_line() {
    # With rates, a node registers 20 people a minute for one address, and each may send 20 messages a second.
    local users=20 pids_of_nodes=
    if [[ ${ROOKERY_RATES_ENABLED:-true} == false ]]; then users=200; fi
    local line="rookery-loadtest direct --users $users --rate 100"
    for ((n = 0; n < nodes; n++)); do
        line+=" --target http://127.0.0.1:${listen_ports[n]}"
        pids_of_nodes+=",${pids[node-$((n + 1))]}"
    done
    line+=" --pids gateway=${pids_of_nodes#,} postgres=${pids[postgres]} redis=${pids[redis]} nginx=${pids[nginx]}"
    printf '%s' "$line"
}

row() { printf '  %-10s %-24s %-24s %-8s %s\n' "$@"; }
say "" "The cluster is ready: http://127.0.0.1:$http_port" ""
row "" ADDRESS OPERATIONS PID LOG
for ((n = 0; n < nodes; n++)); do
    name=node-$((n + 1))
    row "$name" "127.0.0.1:${listen_ports[n]}" "127.0.0.1:${ops_ports[n]}" "${pids[$name]}" "$dir/log/$name.log"
done
row nginx "127.0.0.1:$http_port" - "${pids[nginx]}" "$dir/nginx/access.log"
row redis "127.0.0.1:$redis_port" - "${pids[redis]}" "$dir/log/redis.log"
row postgres "127.0.0.1:$postgres_port" - "${pids[postgres]}" "$dir/log/postgres.log"
cat <<END

Try next:
  curl -s http://127.0.0.1:${ops_ports[0]}/health       how node-1 sees the cluster
  kill -9 ${pids[node-1]}       a node dies: its clients resume elsewhere
  kill ${pids[node-$nodes]}          a node drains first, as in a rolling update
  redis-cli -p $redis_port flushall
  psql -h 127.0.0.1 -p $postgres_port -U rookery rookery

Load it and see what each role costs; for more than 20 people start with ROOKERY_RATES_ENABLED=false
(loadtest/README.md, "A cluster that runs already"):
  $(load_line)

A node that ends comes back after 5 s. Ctrl-C stops everything; the data stays in $dir.
END

# --- Until Ctrl-C ------------------------------------------------------------------------------

while true; do
    sleep 0.5 &
    # `wait` lets a signal through at once, `sleep` alone does not.
    wait $!
    for name in "${!pids[@]}"; do
        if running "$name"; then continue; fi
        status=0
        wait "${pids[$name]}" || status=$?
        unset "pids[$name]"
        if [[ $name == node-* ]]; then
            say "$name ended with status $status; it starts again in 5 s (log: $dir/log/$name.log)"
            restart_at[$name]=$((SECONDS + 5))
        else
            say "$name ended with status $status (log: $dir/log/$name.log)"
        fi
    done
    for name in "${!restart_at[@]}"; do
        if [[ $SECONDS -ge ${restart_at[$name]} ]]; then
            unset "restart_at[$name]"
            start_node $((${name#node-} - 1))
            say "$name started again, pid ${pids[$name]}"
        fi
    done
done 2>/dev/null # where bash reports killed jobs in words of its own
