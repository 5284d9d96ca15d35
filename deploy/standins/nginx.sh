#!/bin/sh
# FOR CHECKS ONLY. What docker-entrypoint.sh of the official image does: templates, scripts, nginx.
set -eu

names=$(env | cut -d= -f1 | grep -E "${NGINX_ENVSUBST_FILTER:-.}" | sed 's/.*/${&}/' | tr '\n' ' ')
cd /etc/nginx/templates
find . -name '*.template' | while read -r template; do
    out=${NGINX_ENVSUBST_OUTPUT_DIR:-/etc/nginx/conf.d}/${template%.template}
    mkdir -p "$(dirname "$out")"
    envsubst "$names" <"$template" >"$out"
done
for script in /docker-entrypoint.d/*.sh; do
    if [ -e "$script" ]; then "$script"; fi
done
exec nginx -e stderr -g 'daemon off;'
