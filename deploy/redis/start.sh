#!/bin/sh
# Starts Redis with three users: `rookery`, who may only do what nodes do, `probe`, who may only ask
# whether it lives, and `default`, who may do nothing.
#   REDIS_PASSWORD or REDIS_PASSWORD_FILE   the password of `rookery`
#   ROOKERY_RUN_DIR                         a folder to write to (/run/redis)
set -eu

if [ -n "${REDIS_PASSWORD_FILE:-}" ]; then REDIS_PASSWORD=$(cat "$REDIS_PASSWORD_FILE"); fi
hash=$(printf %s "${REDIS_PASSWORD:?is not set}" | sha256sum | cut -d ' ' -f 1)
unset REDIS_PASSWORD

users=${ROOKERY_RUN_DIR:-/run/redis}/users.acl
umask 077
# -@dangerous takes back FLUSHALL, KEYS and their like, which @read and @write hold.
cat >"$users" <<END
user default off
user probe on nopass resetkeys resetchannels -@all +ping
user rookery on #$hash ~rookery:* &rookery:* -@all +@connection +@pubsub +@read +@write +@scripting -@dangerous +info +role
END
exec redis-server "$(dirname "$0")/redis.conf" --aclfile "$users"
