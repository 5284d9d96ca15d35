# shellcheck shell=bash
# Sourced by scripts/check-deploy.sh: everything that can be said of what people deploy with without
# running it: manifests, images, proxy, rules and service unit.
# shellcheck disable=SC2154 # $work and $tools are those of the script that sources this.

# Of the definitions of HTTPRoute, and of PodMonitor and PrometheusRule.
gateway_api=sigs.k8s.io/gateway-api@v1.2.1
prometheus_operator=github.com/prometheus-operator/prometheus-operator@v0.79.2
kubernetes=(1.30 1.34 1.37)

step tools
# kustomize, and the definitions of Kubernetes' extensions.
need_go
building=
if [[ $(kubectl version --client 2>/dev/null) == *"Kustomize Version: v5"* ]]; then
    kustomize() { kubectl kustomize "$@"; }
else
    kustomize() { "$tools/bin/kustomize" build "$@"; }
    # Compiling takes a minute, so the rest is installed meanwhile.
    if [[ ! -x $tools/bin/kustomize ]]; then
        GOBIN=$tools/bin go install sigs.k8s.io/kustomize/kustomize/v5@v5.5.0 &
        building=$!
    fi
fi
debian nginx=nginx promtool=prometheus docker-compose=docker-compose openssl=openssl \
    envsubst=gettext-base curl=curl systemd-analyze=systemd shellcheck=shellcheck
python
if [[ -n $building ]]; then wait "$building" || fail "kustomize could not be built"; fi
module() { go mod download -json "$1" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p'; }

step shell scripts
shellcheck -x .ci/run scripts/*.sh deploy/*/*.sh deploy/k8s/components/*/*.sh

step yaml
yamllint -s -d '{extends: relaxed, rules: {line-length: disable, comments: enable, braces: disable, commas: disable}}' \
    deploy docker-compose.cluster.yml

step kubernetes
deploy/k8s/components/prometheus-operator/render.sh --check
for overlay in deploy/k8s/overlays/*/; do kustomize "$overlay" >"$work/$(basename "$overlay").yaml"; done
for component in deploy/k8s/components/*/; do
    name=$(basename "$component")
    mkdir "deploy/k8s/.check-$name"
    printf 'resources: [../base]\ncomponents: [../components/%s]\nnamespace: rookery\n' "$name" \
        >"deploy/k8s/.check-$name/kustomization.yaml"
    kustomize "deploy/k8s/.check-$name" >"$work/component-$name.yaml"
done
for version in "${kubernetes[@]}"; do
    kubernetes-validate --strict -k "$version" "$work"/*.yaml >"$work/validate.log" 2>&1 ||
        { grep -v '^INFO.* passed' "$work/validate.log"; fail "not valid for Kubernetes $version"; }
    echo "valid for Kubernetes $version: $(grep -c '^INFO.* passed' "$work/validate.log") objects"
done
crds=("$(module $gateway_api)/config/crd/standard" "$(module $prometheus_operator)/example/prometheus-operator-crd")
"$tools/venv/bin/python" deploy/checks/crds.py "${crds[@]}" -- "$work"/*.yaml

step checkov
# Not heeded: images by digest and always pulled anew (the operator's choice, in the overlay), a limit
# of processor (a throttled node looks dead to its neighbours).
checkov --framework kubernetes --skip-download --compact --quiet \
    --skip-check CKV_K8S_11,CKV_K8S_15,CKV_K8S_43 -f "$work/dev.yaml" "$work/production.yaml"
checkov --framework dockerfile --skip-download --compact --quiet -f Dockerfile

step hadolint
hadolint Dockerfile

step compose
# An environment that has every secret, and none of it real.
sed 's/CHANGE_ME/0/' .env.example >"$work/env"
docker-compose -f docker-compose.cluster.yml --env-file "$work/env" --profile mail config -q
if docker compose version >/dev/null 2>&1; then
    docker compose -f docker-compose.cluster.yml --env-file "$work/env" config -q
else
    echo "Compose v2 is not installed: its own check is left out"
fi

step nginx
mkdir -p "$work/nginx/run"
cp -r deploy/nginx/http.d deploy/nginx/server.d "$work/nginx/"
cp deploy/nginx/tools/tools.conf deploy/nginx/http.d/real-ip.conf.example "$work/nginx/http.d/"
mv "$work/nginx/http.d/real-ip.conf.example" "$work/nginx/http.d/real-ip.conf"
scripts/self-signed.sh "$work/nginx/tls" >/dev/null
# nginx_conf UPSTREAMS LISTEN
nginx_conf() {
    ROOKERY_LISTEN=$2 ROOKERY_RUN_DIR=$work/nginx/run ROOKERY_UPSTREAMS=$1 \
        envsubst "\$ROOKERY_LISTEN \$ROOKERY_UPSTREAMS \$ROOKERY_RUN_DIR" <deploy/nginx/rookery.conf.template >"$work/nginx/nginx.conf"
}
nginx_conf 'server 127.0.0.1:18081 max_fails=0;' 127.0.0.1:18080
nginx -t -q -e stderr -c "$work/nginx/nginx.conf" -p "$work/nginx"
# As in the Kubernetes component, less `resolve`, which this nginx may be too old to know.
echo 'resolver 127.0.0.1 valid=5s ipv6=off;' >"$work/nginx/http.d/resolver.conf"
nginx -t -q -e stderr -c "$work/nginx/nginx.conf" -p "$work/nginx"
# Not heeded: $http_host (nodes compare it with Origin, and build nothing from it), and twice the files
# (both sides of a proxied socket are counted in worker_connections already).
gixy --skips host_spoofing,worker_rlimit_nofile_vs_connections "$work/nginx/nginx.conf"

step prometheus
promtool check config deploy/prometheus/prometheus.yml
promtool test rules deploy/prometheus/*.rules.test.yml
sed -n 's/^ *- alert: //p' deploy/prometheus/*.rules.yml | while read -r alert; do
    grep -q "^#### $alert\$" docs/OPERATIONS.md || fail "docs/OPERATIONS.md does not say what to do about $alert"
    grep -q "^  - name: $alert\$" deploy/prometheus/*.rules.test.yml || fail "$alert has no test"
done

step service unit
# The unit names a program that is not here.
sed "s|/usr/local/bin/rookery|$(command -v true)|" deploy/systemd/rookery.service >"$work/rookery.service"
systemd-analyze verify "$work/rookery.service"
systemd-analyze security --offline=true --threshold=20 "$work/rookery.service" | tail -n 1
