.DEFAULT_GOAL := help
comma := ,
.PHONY: help run test random chaos autobahn cluster bench load growth compare instructions profile check-deploy \
	check-compose fmt lint

help: ## Show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{ printf "  make %-13s %s\n", $$1, $$2 }'

run: ## Serve on http://127.0.0.1:8080 with SQLite in ./data
	cargo run --release --locked -- serve

test: ## Run all tests against real PostgreSQL, Redis and nginx
	scripts/install-test-deps.sh
	cargo test --workspace --locked

# One seed runs with all tests; a failure names its seed: make random SEED=7 SEEDS=1
random: ## Run the random test over 20 seeds of 10,000 operations
	ROOKERY_RANDOM_SEED=$(or $(SEED),1) ROOKERY_RANDOM_SEEDS=$(or $(SEEDS),20) \
	ROOKERY_RANDOM_OPERATIONS=$(or $(OPERATIONS),10000) \
	cargo test --locked -p rookery --test cluster -- --nocapture random::every_device_agrees

# Faults come for MINUTES; three of each kind take about 15: make chaos SEED=7 MINUTES=30 KINDS=node-kill
chaos: ## Break three nodes at random under load and judge the outcome
	scripts/install-test-deps.sh
	cargo build --locked -p rookery --features failpoints
	cargo run --locked -p rookery-chaos -- --binary target/debug/rookery --minutes $(or $(MINUTES),15) \
	$(if $(SEED),--seed $(SEED)) $(if $(RATE),--rate $(RATE)) $(if $(KINDS),--kinds $(KINDS)) $(ARGS)

autobahn: ## Run Autobahn's suite of the WebSocket protocol (needs Python 2.7)
	scripts/autobahn.sh

cluster: ## Run three nodes behind nginx, with PostgreSQL and Redis, until Ctrl-C
	scripts/cluster.sh

# On a machine that does nothing else; takes about four minutes
bench: ## Measure against the budgets; writes loadtest/results/bench.{json,html,md}
	cargo build --release --locked -p rookery -p rookery-loadtest
	target/release/rookery-loadtest run bench --report loadtest/results/bench.json

# For instance: make load SCENARIO=smoke TARGET="http://a:8080 http://b:8080" ARGS="--threads 2"
load: ## Run one scenario against a cluster of its own, or TARGET
	cargo build --release --locked -p rookery -p rookery-loadtest
	target/release/rookery-loadtest run $(or $(SCENARIO),smoke) $(foreach url,$(TARGET),--target $(url)) \
	--report loadtest/results/$(notdir $(basename $(or $(SCENARIO),smoke))).json $(ARGS)

growth: ## Measure how costs grow with users, nodes, groups and logs (QUICK=1: in a few minutes)
	cargo build --release --locked -p rookery -p rookery-loadtest
	target/release/rookery-loadtest run growth$(if $(QUICK),-quick) --report loadtest/results/growth.json

# A few minutes each, on a machine that does nothing else: make compare ONLY=ws,socketio QUICK=1
compare: ## Drive Rookery and other servers through the same work, side by side
	scripts/install-peers.sh $(subst $(comma), ,$(ONLY)) || echo "Those that are installed are compared."
	cargo build --release --locked -p rookery -p rookery-loadtest
	target/release/rookery-loadtest compare $(if $(ONLY),--only $(ONLY)) $(if $(QUICK),--scenario compare-quick) \
	--report loadtest/results/compare.json $(ARGS)

# A part of them, or new figures on record: make instructions FILTER=deliver UPDATE=1
instructions: ## Count the instructions a message takes; fails if one takes more than on record
	cargo build --profile instructions --locked -p rookery-benches
	target/instructions/rookery-instructions $(FILTER) $(if $(UPDATE),--update)

# Sees more of a machine that does nothing else; SECONDS_EACH=60 looks longer
profile: ## Draw flame graphs of a node under load, of CPU and allocations, in target/profile
	scripts/install-test-deps.sh
	scripts/profile.sh

# LIVE=no leaves out the part with a running cluster; what it installs on Debian needs root
check-deploy: ## Check manifests, images, proxy, alerts, dashboard and service unit
	scripts/check-deploy.sh

check-compose: ## Bring the compose file up and talk through it while a node is stopped
	scripts/check-compose.sh

fmt: ## Format the code
	cargo fmt --all

# Clippy looks twice: with the failpoints that all tests have, and as it is released.
# deny and machete run where they are installed: cargo install cargo-deny cargo-machete
lint: ## Run clippy, rustdoc and dependency checks, warnings are errors
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo clippy --workspace --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --workspace --locked
	@if command -v cargo-deny >/dev/null; then cargo deny --offline check bans licenses sources; fi
	@if command -v cargo-machete >/dev/null; then cargo machete; fi
