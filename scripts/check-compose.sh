#!/usr/bin/env bash
# Brings docker-compose.cluster.yml up as it is, holds a conversation through it over TLS, stops one
# node and kills another meanwhile, and takes everything down again.
#
# Runs as root on Debian, with whatever Docker engine DOCKER_HOST names, or one of its own. Base images
# are not pulled but imitated from Debian packages (deploy/standins), so three things are not shown: the
# compiling stages of the Dockerfile (the binary comes from here), the size of the image, and Grafana,
# which Debian does not have.
#
#   ROOKERY_BIN   put this binary into the image instead of building one
set -euo pipefail
cd "$(dirname "$0")/.."
source deploy/checks/tools.sh

work=$(mktemp -d)
engine=
finish() {
    if [[ -e $work/env ]]; then compose down -v --timeout 5 >/dev/null 2>&1 || true; fi
    if [[ -n $engine ]]; then
        kill "$engine" 2>/dev/null || true
        wait "$engine" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap finish EXIT

compose() { docker-compose -p rookery-check -f docker-compose.cluster.yml --env-file "$work/env" "$@"; }

step tools
debian dockerd=docker.io docker=docker.io docker-compose=docker-compose debootstrap=debootstrap \
    iptables=iptables curl=curl openssl=openssl
python
if ! docker info >/dev/null 2>&1; then
    export DOCKER_HOST=unix://$work/docker.sock
    # Its images are kept for the next time.
    dockerd --data-root "$tools/docker" --exec-root "$work/exec" --pidfile "$work/docker.pid" \
        -H "$DOCKER_HOST" >"$work/dockerd.log" 2>&1 &
    engine=$!
    for _ in $(seq 60); do
        if docker info >/dev/null 2>&1; then break; fi
        kill -0 "$engine" 2>/dev/null || { tail -n 20 "$work/dockerd.log" >&2; fail "the Docker engine does not start"; }
        sleep 0.5
    done
fi

step images
deploy/standins/build.sh
if [[ -z ${ROOKERY_BIN:-} ]]; then
    cargo build --locked --bin rookery
    ROOKERY_BIN=${CARGO_TARGET_DIR:-target}/debug/rookery
fi
# The last stage as it is; in place of those that compile, one that has the binary.
mkdir -p "$work/image/data"
strip --strip-debug -o "$work/image/rookery" "$ROOKERY_BIN"
{
    printf 'FROM scratch AS build\nCOPY rookery /rookery\nCOPY data /data\n'
    sed -n '/^FROM gcr.io/,$p' Dockerfile
} >"$work/image/Dockerfile"
docker build -q -t rookery:local "$work/image"

step up
sed -e "s/CHANGE_ME/$(openssl rand -hex 32)/" -e 's/^HTTP_PORT=.*/HTTP_PORT=18680/' \
    -e 's/^HTTPS_PORT=.*/HTTPS_PORT=18643/' .env.example >"$work/env"
# What this machine allows may be less.
sed -i "s/^OPEN_FILES=.*/OPEN_FILES=$(ulimit -Hn)/" "$work/env"
printf 'GRAFANA_PORT=18630\nPROMETHEUS_PORT=18691\nMAIL_PORT=18625\n' >>"$work/env"
compose up -d --no-build nginx prometheus
logs() { compose ps; compose logs --tail 20; }
for attempt in $(seq 120); do
    if curl -fsSk -o /dev/null https://127.0.0.1:18643/health 2>/dev/null; then break; fi
    [[ $attempt -lt 120 ]] || { logs >&2; fail "nothing answers after two minutes"; }
    sleep 1
done
[[ $(curl -sk -o /dev/null -w '%{http_code}' https://127.0.0.1:18643/metrics) == 404 ]] || fail "/metrics is public"

step conversation, with a node stopped and another killed
"$tools/venv/bin/python" deploy/checks/conversation.py https://127.0.0.1:18643 30 "$work/under-way" &
conversation=$!
while [[ ! -e $work/under-way ]]; do
    kill -0 "$conversation" 2>/dev/null || { logs >&2; fail "there was no conversation"; }
    sleep 0.2
done
compose stop node1
compose kill node2
wait "$conversation" || { logs >&2; fail "the conversation was not whole"; }

step what the parts say
# The addresses are those of the containers again, so nginx finds them without being told.
compose up -d --no-build nginx
"$tools/venv/bin/python" deploy/checks/conversation.py http://127.0.0.1:18680 5
up=$(curl -fsS --get --data-urlencode 'query=sum(up{job="rookery"})' http://127.0.0.1:18691/api/v1/query)
[[ $up == *'"value"'* ]] || fail "Prometheus, behind nginx, knows no node: $up"
compose logs --no-color nginx >"$work/nginx.log"
grep -q '"uri":"/ws"' "$work/nginx.log" || fail "nginx has logged no socket"
if grep -q 'eyJ' "$work/nginx.log"; then fail "nginx has logged a token"; fi
denied=$(compose exec -T redis redis-cli --user probe --pass none --no-auth-warning get x 2>&1)
[[ $denied == *NOPERM* ]] || fail "Redis lets anybody read"
compose down -v --timeout 80
