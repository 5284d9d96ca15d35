#!/usr/bin/env bash
# Writes prometheusrule.yaml from deploy/prometheus/*.rules.yml, which Prometheus itself reads.
# --check only says whether it is up to date.
set -euo pipefail
cd "$(dirname "$0")"

render() {
    echo "# Made by render.sh from deploy/prometheus: change it there."
    printf '%s\n' "apiVersion: monitoring.coreos.com/v1" "kind: PrometheusRule" "metadata:" "  name: rookery" "spec:" "  groups:"
    # Everything below `groups:`, two spaces deeper.
    for file in ../../../prometheus/*.rules.yml; do
        sed -e '0,/^groups:/d' -e '/./s/^/  /' "$file"
    done
}

if [[ ${1:-} == --check ]]; then
    diff <(render) prometheusrule.yaml || { echo "prometheusrule.yaml is out of date: run $0" >&2; exit 1; }
else
    render >prometheusrule.yaml
fi
