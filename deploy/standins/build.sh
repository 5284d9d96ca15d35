#!/usr/bin/env bash
# Makes stand-ins for the base images of Dockerfile and docker-compose.cluster.yml from Debian packages.
# FOR CHECKS ONLY; see README.md. Runs as root on Debian with debootstrap and a Docker engine.
set -euo pipefail
cd "$(dirname "$0")"

images=(gcr.io/distroless/cc-debian12:nonroot nginx:1.28 postgres:15-bookworm redis:7.2-bookworm prom/prometheus:v2.55.1)
base=rookery-standin-base:bookworm
packages=ca-certificates,curl,gettext-base,nginx-light,openssl,postgresql-15,prometheus,redis-server,busybox

label() { docker image inspect --format '{{index .Config.Labels "rookery.standin"}}' "$1" 2>/dev/null; }

if [[ ${1:-} == --remove ]]; then
    for image in "${images[@]}" "$base"; do
        if [[ $(label "$image") == yes ]]; then docker image rm --force "$image" >/dev/null; fi
    done
    exit
fi
for image in "${images[@]}"; do
    if docker image inspect "$image" >/dev/null 2>&1 && [[ $(label "$image") != yes ]]; then
        echo "standins: $image is a real image; nothing is made in its place" >&2
        exit 1
    fi
done

if [[ $(label "$base") != yes ]]; then
    root=$(mktemp -d)
    trap 'rm -rf "$root"' EXIT
    # Where this machine gets its own packages from.
    # shellcheck disable=SC2016 # a form that apt-get fills in
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Codename: bookworm' | sed -n 1p)
    debootstrap --variant=minbase --include="$packages" bookworm "$root" "${mirror:?apt knows no bookworm}" >"$root.log" 2>&1 ||
        { tail -n 20 "$root.log" >&2; exit 1; }
    tar -C "$root" --exclude=./var/cache/apt/archives/* --exclude=./var/lib/apt/lists/* --exclude=./proc/* \
        --exclude=./sys/* --exclude=./dev/* -c . |
        docker import --change 'LABEL rookery.standin=yes' - "$base" >/dev/null
fi

for image in "${images[@]}"; do
    # distroless/cc-debian12:nonroot is the target distroless, and so on.
    target=${image##*/}
    target=${target%%:*}
    [[ $target != cc-debian12 ]] || target=distroless
    docker build -q --label rookery.standin=yes --target "$target" -t "$image" . >/dev/null
    echo "made a stand-in for $image"
done
