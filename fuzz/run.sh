#!/usr/bin/env bash
# Fuzz every reader, or those named, and print a table of what was done:
#   fuzz/run.sh CPU_SECONDS [TARGET ...]
# Needs cargo-fuzz; a stable toolchain does. Each target runs on one core until it has used that much of it. A panic,
# an input that takes over 10 seconds, or over 1 GB of memory, ends the run with status 1 and the input under artifacts/.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:?usage: fuzz/run.sh CPU_SECONDS [TARGET ...]}
shift
targets=("$@")
[ $# -gt 0 ] || mapfile -t targets < <(cargo metadata --no-deps --format-version 1 |
    python3 -c 'import json, sys; [print(t["name"]) for t in json.load(sys.stdin)["packages"][0]["targets"] if t["kind"] == ["bin"]]')
export RUSTC_BOOTSTRAP=1 # sanitizers are unstable options
host=$(rustc -vV | sed -n 's/^host: //p')
cargo fuzz build --fuzz-dir . > build.log 2>&1 || { cat build.log; exit 1; }
echo "| reader | executions | a second | inputs kept | CPU s | peak MiB | found |"
echo "|---|---:|---:|---:|---:|---:|---|"
status=0
for target in "${targets[@]}"; do
    mkdir -p "corpus/$target" "artifacts/$target" "regressions/$target"
    log=$(mktemp)
    found=nothing
    python3 - "$seconds" "target/$host/release/$target" "$target" 2> "$log" <<'PY' || found="see fuzz/artifacts/$target"
import resource, subprocess, sys
seconds, binary, target = int(sys.argv[1]), sys.argv[2], sys.argv[3]
spent = lambda: sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
status = 0
while not status and (left := seconds - spent()) >= 1:
    command = [binary, f"corpus/{target}", f"seeds/{target}", f"regressions/{target}", f"-artifact_prefix=artifacts/{target}/", "-print_final_stats=1",
               f"-max_total_time={max(1, int(left))}", "-max_len=1048576", "-timeout=10", "-rss_limit_mb=1024",
               "-detect_leaks=0"]
    status = subprocess.run(command, stderr=sys.stderr).returncode
print(f"cpu {spent():.0f}", file=sys.stderr, flush=True)
sys.exit(status)
PY
    sum() { awk -v key="$1" '$1 == key { total += $2; if ($2 > top) top = $2 } END { print '"$2"' + 0 }' "$log"; }
    runs=$(sum stat::number_of_executed_units: total)
    peak=$(sum stat::peak_rss_mb: top)
    cpu=$(sum cpu total)
    [ "$found" = nothing ] || { status=1; tail -30 "$log" >&2; }
    echo "| $target | $runs | $((runs / (cpu > 0 ? cpu : 1))) | $(ls "corpus/$target" | wc -l) | $cpu | $peak | $found |"
done
exit $status
