#!/usr/bin/env bash
# Installs what the load test compares Rookery with: Node.js and npm packages, Python packages in a
# virtual environment under target/, ejabberd. Names of peers as arguments: only those. One that cannot be
# installed does not hold up the others; exit code 3 says that some are missing, and which is written.
set -euo pipefail
cd "$(dirname "$0")/.."

peers=("$@")
if [[ ${#peers[@]} -eq 0 ]]; then
    for file in loadtest/peers/*/peer.toml; do peers+=("$(basename "$(dirname "$file")")"); done
fi

if [[ ${#peers[@]} -gt 1 ]]; then
    missing=()
    # Each in a shell of its own: a failure ends only that one.
    for peer in "${peers[@]}"; do scripts/install-peers.sh "$peer" || missing+=("$peer"); done
    if [[ ${#missing[@]} -eq 0 ]]; then exit 0; fi
    echo "not installed: ${missing[*]}" >&2
    exit 3
fi

have() { command -v "$1" >/dev/null; }

# Debian packages; ends here where that needs root.
debian() {
    if [[ $(id -u) -ne 0 ]] || ! have apt-get; then
        echo "These Debian packages are missing: $*. Install them, or run this as root." >&2
        exit 1
    fi
    # The load test starts its servers by itself; 101 means that a package may not.
    local policy=/usr/sbin/policy-rc.d
    if [[ ! -e $policy ]]; then
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "$@"
}

# The packages of a lock file, unless they are there already.
node_packages() {
    local folder=loadtest/peers/$1
    have node || debian nodejs
    have npm || debian npm
    if [[ $folder/package-lock.json -nt $folder/node_modules/.package-lock.json ]]; then
        # Native parts come built; scripts of packages have nothing to do.
        npm ci --prefix "$folder" --ignore-scripts --no-audit --no-fund --loglevel=error
        touch "$folder/node_modules/.package-lock.json"
    fi
}

# The packages of a requirements file, in a virtual environment; asks pip only if it has changed.
python_packages() {
    local folder=loadtest/peers/$1 venv=target/peers/$1
    if cmp -s "$folder/requirements.txt" "$venv/installed.txt"; then return; fi
    if ! have python3 || ! python3 -c 'import ensurepip, venv' 2>/dev/null; then debian python3-venv; fi
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps -r "$folder/requirements.txt"
    cp "$folder/requirements.txt" "$venv/installed.txt"
}

# The server, and what it speaks to PostgreSQL with.
ejabberd() {
    if [[ -x /usr/sbin/ejabberdctl ]] && compgen -G '/usr/lib/erlang/lib/p1_pgsql-*' >/dev/null; then return; fi
    debian ejabberd erlang-p1-pgsql
    # Nor does it start at the next boot.
    if have systemctl; then systemctl disable --quiet ejabberd || true; fi
}

for peer in "${peers[@]}"; do
    case $peer in
        ws | socketio) node_packages "$peer" ;;
        ejabberd) ejabberd ;;
        fastapi) python_packages "$peer" ;;
        *) echo "there is no peer $peer" >&2; exit 2 ;;
    esac
done
