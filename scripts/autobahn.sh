#!/usr/bin/env bash
# Runs Autobahn's suite of the WebSocket protocol, cases 1 to 7, against the settings of the
# server's own sockets. Needs Python 2.7, for which alone the suite exists; reports go to
# .cache/autobahn/report/index.html.
set -euo pipefail
cd "$(dirname "$0")/.."

python=
for candidate in python2.7 "${HOME:-}"/.pyenv/versions/2.7*/bin/python2.7; do
    if command -v "$candidate" >/dev/null && "$candidate" -c 'import pip' 2>/dev/null; then
        python=$(command -v "$candidate")
        break
    fi
done
if [[ -z $python ]]; then
    echo "autobahn: no Python 2.7 with pip found, and the suite runs on nothing newer." >&2
    echo "Install one (pyenv install 2.7.18) or put it in the PATH as python2.7." >&2
    exit 1
fi

cache=$PWD/.cache/autobahn
packages=$cache/packages
if [[ ! -e $packages/.complete ]]; then
    rm -rf "$packages"
    "$python" -m pip install --quiet --disable-pip-version-check --no-warn-script-location \
        --target "$packages" autobahntestsuite==0.8.2
    touch "$packages/.complete"
fi
rm -rf "$cache/report"
mkdir -p "$cache/report"

cargo build --quiet --locked --example ws_echo
exec 3< <(exec "${CARGO_TARGET_DIR:-target}/debug/examples/ws_echo")
server=$!
trap 'kill "$server"' EXIT
read -r url <&3
"$python" tests/autobahn/fuzzingclient.py "$packages" "$url" "$cache/report"
