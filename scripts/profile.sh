#!/usr/bin/env bash
# Where a node spends its time and its allocations under load: starts PostgreSQL, Redis and one node,
# has the load test send direct messages as fast as they go, and draws flame graphs.
#
#   SECONDS_EACH   how long each of the two looks takes (20)
#   USERS          users who write to each other in pairs (2000)
#   OUT            the folder for what comes out (target/profile)
#
# Out: cpu.svg by samples of the processor; allocations.svg by bytes allocated while the load ran, and
# live.svg by bytes that were in use at its end; beside each the stacks as text (.folded), and what the
# load test said.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '== %s\n' "$*"; }
fail() { printf 'profile: %s\n' "$*" >&2; exit 1; }

seconds=${SECONDS_EACH:-20}
users=${USERS:-2000}
out=${OUT:-target/profile}
[[ $seconds =~ ^[1-9][0-9]*$ ]] || fail "SECONDS_EACH must be a whole number from 1 on, not '$seconds'."
[[ $users =~ ^[1-9][0-9]*$ ]] || fail "USERS must be a whole number from 1 on, not '$users'."
mkdir -p "$out"
out=$(cd "$out" && pwd)
target=${CARGO_TARGET_DIR:-target}

# --- What must be there ------------------------------------------------------------------------

missing=()
command -v perf >/dev/null || missing+=("perf (Debian: linux-perf)")
command -v perl >/dev/null || missing+=("perl, for jeprof")
command -v addr2line >/dev/null || missing+=("addr2line (Debian: binutils), for jeprof")
[[ ${#missing[@]} -eq 0 ]] || fail "not installed: $(IFS=';'; echo "${missing[*]}")."

# Machines without counters of their own, as many virtual ones, have a clock. The kernel's part shows
# only to who may see it.
event=
for candidate in cycles cycles:u cpu-clock cpu-clock:u; do
    if perf record -q -e "$candidate" -o "$out/probe.data" -- true >/dev/null 2>&1; then
        # Where there are no counters perf takes the clock by itself.
        event=$(perf evlist -i "$out/probe.data" | head -n 1)
        break
    fi
done
rm -f "$out/probe.data"
if [[ -z $event ]]; then
    paranoid=$(cat /proc/sys/kernel/perf_event_paranoid 2>/dev/null || echo unknown)
    fail "perf may not record (kernel.perf_event_paranoid is $paranoid): run as root, or, as root, sysctl kernel.perf_event_paranoid=2."
fi
unit=events
[[ $event != cpu-clock* ]] || unit=ns
[[ $event != *u ]] || say "the kernel's part will not show: that takes root, or kernel.perf_event_paranoid of 1"

# A tool, not a library: its licence (CDDL) stays out of what is built here.
tools=$target/tools/bin
if [[ ! -x $tools/inferno-flamegraph ]]; then
    say "installing inferno, which draws flame graphs, in $target/tools"
    cargo install inferno --version 0.12.8 --locked --root "$target/tools" ||
        fail "inferno could not be installed; it comes from crates.io."
fi

say "building a release that can tell who allocates"
# In a folder of its own: what is in target/release is not to be built with the feature.
cargo build --release --locked -p rookery -p rookery-loadtest --features rookery/profiling \
    --target-dir "$target/profiling"
built=$(cd "$target/profiling/release" && pwd)
# It comes with the allocator's source, as a template of which only the version is missing.
jeprof=$out/jeprof
template=$(cargo metadata --format-version 1 --locked |
    grep -o '"manifest_path":"[^"]*/tikv-jemalloc-sys-[^"/]*/Cargo.toml"' | cut -d '"' -f 4)
template=${template%/Cargo.toml}/jemalloc/bin/jeprof.in
[[ -r $template ]] || fail "jeprof is missing in the allocator's source: $template."
sed 's/@jemalloc_version@/5/' "$template" >"$jeprof"

# --- Under load --------------------------------------------------------------------------------

load=
stop() {
    if [[ -n $load ]] && kill -0 "$load" 2>/dev/null; then
        kill -s INT "$load" 2>/dev/null || true
        wait "$load" 2>/dev/null || true
    fi
    load=
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# under_load NAME [options of the load test]: returns once it measures; the node's process is $node.
under_load() {
    local name=$1 log=$out/load-$1.log
    shift
    # Longer than the look takes: it is stopped behind it.
    "$built/rookery-loadtest" direct --rookery "$built/rookery" --nodes 1 --workers 1 \
        --users "$users" --warmup 5 --seconds $((seconds + 600)) "$@" >"$log" 2>&1 &
    load=$!
    until grep -q '^measuring: ' "$log"; do
        kill -0 "$load" 2>/dev/null || fail "the load test ended early: $(tail -n 5 "$log")"
        sleep 0.5
    done
    node=$(pgrep -f "^$built/rookery serve" | head -n 1) || fail "the node is gone: see $log."
    say "$name: $(tail -n 1 "$log")"
}

flame() { "$tools/inferno-flamegraph" --title "$1" --countname "$2" "$3.folded" >"$3.svg"; }

say "samples of the processor ($event) for $seconds s"
under_load cpu
# Stacks are unwound by copies of them: a build with frame pointers would be another program.
perf record -q -e "$event" -F 199 --call-graph dwarf,16384 -p "$node" -o "$out/cpu.data" -- sleep "$seconds" ||
    fail "perf record failed."
stop
say "unwinding, which takes a while"
perf script -i "$out/cpu.data" --no-inline 2>"$out/perf-script.log" |
    "$tools/inferno-collapse-perf" --all 2>>"$out/perf-script.log" >"$out/cpu.folded"
[[ -s $out/cpu.folded ]] || fail "no samples came: see $out/perf-script.log."
flame "Rookery: one node, direct messages, CPU" "$unit" "$out/cpu"

# A dump for each 256 MiB that were allocated; a sample for each 512 KiB.
say "allocations for $seconds s"
rm -f "$out"/heap.*
under_load allocations --set "_RJEM_MALLOC_CONF=prof:true,prof_accum:true,lg_prof_interval:28,prof_prefix:$out/heap"
first=$(find "$out" -name 'heap.*.heap' | sort -V | tail -n 1)
sleep "$seconds"
stop
last=$(find "$out" -name 'heap.*.heap' | sort -V | tail -n 1)
[[ -n $last && $last != "$first" ]] || fail "the allocator wrote nothing: see $out/load-allocations.log."
# Without the addresses that jeprof puts behind names.
collapse() { perl "$jeprof" --collapsed "$@" 2>>"$out/jeprof.log" | sed -E 's/<[0-9a-f]{16}>|\[inline\]//g'; }
: >"$out/jeprof.log"
collapse --alloc_space ${first:+"--base=$first"} "$built/rookery" "$last" >"$out/allocations.folded"
collapse --inuse_space "$built/rookery" "$last" >"$out/live.folded"
[[ -s $out/allocations.folded ]] || fail "jeprof made nothing of it: see $out/jeprof.log."
flame "Rookery: one node, direct messages, bytes allocated" bytes "$out/allocations"
flame "Rookery: one node, direct messages, bytes in use" bytes "$out/live"
rm -f "$out"/heap.* "$out/cpu.data.old"

say "open $out/cpu.svg, $out/allocations.svg and $out/live.svg in a browser"
