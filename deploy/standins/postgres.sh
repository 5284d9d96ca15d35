#!/bin/bash
# FOR CHECKS ONLY. What docker-entrypoint.sh of the official image does: a new database, then the server
# as the user postgres.
set -euo pipefail

as_postgres=(setpriv --reuid=postgres --regid=postgres --init-groups)
mkdir -p "$PGDATA" /var/run/postgresql
chown postgres: "$PGDATA" /var/run/postgresql
chmod 700 "$PGDATA"
if [[ ! -s $PGDATA/PG_VERSION ]]; then
    password=$(mktemp)
    printf %s "$POSTGRES_PASSWORD" >"$password"
    chown postgres: "$password"
    "${as_postgres[@]}" initdb -D "$PGDATA" -U "$POSTGRES_USER" -A scram-sha-256 -E UTF8 --locale=C.UTF-8 \
        --pwfile="$password" >/dev/null
    rm "$password"
    echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
    printf 'CREATE DATABASE "%s";\n' "$POSTGRES_DB" | "${as_postgres[@]}" postgres --single -D "$PGDATA" -j postgres >/dev/null
fi
exec "${as_postgres[@]}" "$@" -D "$PGDATA" -c listen_addresses='*'
