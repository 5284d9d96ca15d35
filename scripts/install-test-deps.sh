#!/usr/bin/env bash
# Installs the servers that the tests start for themselves: Redis, which is its sentinel too,
# PostgreSQL and nginx; and what faults need: pgrep finds nginx's workers, libfaketime sets clocks,
# openssl makes a certificate, sqlite3 writes to a database from outside.
# Does nothing when all are there. With --browser also Chromium, for tests of the web client.
set -euo pipefail

browser=no
for argument in "$@"; do
    case $argument in
        --browser) browser=yes ;;
        *) echo "usage: scripts/install-test-deps.sh [--browser]" >&2; exit 2 ;;
    esac
done

# Debian keeps servers out of the PATH of ordinary users.
PATH=$PATH:/usr/sbin:/sbin
have() { command -v "$1" >/dev/null; }
have_postgres() { have initdb || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; }

missing=()
have redis-server || missing+=(redis-server)
have_postgres || missing+=(postgresql)
have nginx || missing+=(nginx)
have sqlite3 || missing+=(sqlite3)
have openssl || missing+=(openssl)
have pgrep || missing+=(procps)
compgen -G '/usr/lib/*/faketime/libfaketime.so.1' >/dev/null || missing+=(libfaketime)
if [[ $browser == yes ]]; then have chromium || missing+=(chromium); fi
if [[ ${#missing[@]} -eq 0 ]]; then exit 0; fi

if [[ $(id -u) -ne 0 ]] || ! have apt-get; then
    echo "The tests need programs that are not installed: ${missing[*]} (names of Debian packages)." >&2
    echo "Install them, or run scripts/install-test-deps.sh as root on Debian or Ubuntu." >&2
    exit 1
fi

# Tests start servers of their own; those of the distribution must not take the default ports.
# Packages ask this file whether they may start what they install; 101 means no.
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi

export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -o DPkg::Lock::Timeout=120 -y -qq --no-install-recommends "${missing[@]}"

# Nor at the next boot.
if have systemctl; then
    for package in "${missing[@]}"; do
        if [[ $package != @(chromium|openssl|procps|libfaketime|sqlite3) ]]; then systemctl disable --quiet "$package" || true; fi
    done
fi
