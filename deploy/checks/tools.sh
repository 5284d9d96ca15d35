# shellcheck shell=bash
# Sourced by scripts/check-deploy.sh and check-compose.sh, from the repository's root: what they need,
# installed where that can be done, in versions that are pinned.

tools=$PWD/.cache/check-deploy
PATH=$tools/venv/bin:$tools/bin:$PATH:/usr/sbin:/sbin

step() { printf '\n== %s\n' "$*"; }
fail() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null; }

# debian PROGRAM=PACKAGE...: of the distribution, whose versions are its own.
debian() {
    local pair missing=()
    for pair in "$@"; do have "${pair%%=*}" || missing+=("${pair#*=}"); done
    [[ ${#missing[@]} -gt 0 ]] || return 0
    if [[ $(id -u) -ne 0 ]] || ! have apt-get; then
        fail "not installed: ${missing[*]} (Debian packages). Install them, or run this as root on Debian."
    fi
    # What is installed must not take ports that belong to somebody else; 101 means no.
    local policy=/usr/sbin/policy-rc.d made=no
    if [[ ! -e $policy ]]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        made=yes
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -o DPkg::Lock::Timeout=120 -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    [[ $made == no ]] || rm -f "$policy"
}

# What kustomize and Prometheus' operator are written for.
need_go() {
    local hint="install Go 1.23 or later from https://go.dev/dl, and put its bin folder into PATH" found
    have go || fail "go is missing: $hint"
    found=$(go env GOVERSION)
    # The versions in order: the one that is needed must come first.
    printf 'go1.23\n%s\n' "$found" | sort -V -C || fail "go is too old ($found): $hint"
}

# need_python: with what makes virtual environments, which Debian has in a package of its own.
need_python() {
    have python3 || debian python3=python3
    if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
        debian ensurepip=python3-venv
        python3 -c 'import ensurepip, venv' 2>/dev/null ||
            fail "$(command -v python3) cannot make virtual environments: install its venv and ensurepip, or put another python3 first in PATH"
    fi
}

# python: the programs of deploy/checks/requirements.txt.
python() {
    need_python
    if ! cmp -s deploy/checks/requirements.txt "$tools/venv/requirements.txt"; then
        python3 -m venv --clear "$tools/venv"
        "$tools/venv/bin/pip" install -q --disable-pip-version-check -r deploy/checks/requirements.txt
        cp deploy/checks/requirements.txt "$tools/venv/requirements.txt"
    fi
}
