#!/usr/bin/env bash
# Makes .env for docker-compose.cluster.yml from .env.example, with random secrets; keeps one that is
# there.
set -euo pipefail
cd "$(dirname "$0")/.."

if [[ -e .env ]]; then
    echo ".env is there already"
    exit
fi
umask 077
while IFS= read -r line; do
    printf '%s\n' "${line/=CHANGE_ME/=$(openssl rand -hex 32)}"
done <.env.example >.env
echo "made .env"
