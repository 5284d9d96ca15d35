#!/usr/bin/env bash
# Checks all that people deploy with: manifests, images, proxy, rules, dashboard, service unit; then
# lets a real Prometheus watch a real cluster under load, whose nodes are restarted and whose Redis dies.
#
# Installs what it needs (root, on Debian; Python's into .cache). Cannot be had where there are package
# registries only, so not part of this: kubeconform's catalogue of schemas (kubernetes-validate brings
# its own instead), trivy and kube-score, a Kubernetes API for a dry run, and Grafana.
#
#   ROOKERY_BIN        run this binary in the live part instead of building one
#   LOADTEST_BIN       likewise the load test
#   LIVE=no, LIVE=only without the live part, or nothing else
set -euo pipefail
cd "$(dirname "$0")/.."
source deploy/checks/tools.sh

work=$(mktemp -d)
pids=()
finish() {
    local pid
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    rm -rf "$work" "${cluster:-}" deploy/k8s/.check-*
}
trap finish EXIT

case ${LIVE:-yes} in
    yes | no | only) ;;
    *) fail "LIVE is yes, no or only, not '$LIVE'" ;;
esac
if [[ ${LIVE:-yes} != only ]]; then source deploy/checks/static.sh; fi
if [[ ${LIVE:-yes} != no ]]; then source deploy/checks/live.sh; else echo "the live part was left out"; fi
