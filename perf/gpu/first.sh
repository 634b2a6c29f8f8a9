#!/usr/bin/env bash
# The first of two runs on a machine with a GPU and no network: is it right, how fast, how small?  7 minutes on one H100.
#
#   OUT=build/gpu perf/gpu/first.sh        from the root of the repository; what is found is written to OUT as it is found
#   TINY=1 OUT=build/tiny perf/gpu/first.sh    the same in small on a CPU, as a rehearsal
#
# Four processes (SHARES) share the check's rows, CHECK_SECONDS (150) and STEP_SECONDS (220) bound the two parts.  Run
# again with the same OUT it does what is left.  Exit status: 1 a row failed, 75 rows are left, 0 all passed.
set -uo pipefail
cd "$(dirname "$0")/../.."
out="${OUT:-build/gpu}"
mkdir -p "$out"
source perf/gpu/install.sh
device=(--device cuda) small=() tiny=()
if [ -n "${TINY:-}" ]; then device=(--device cpu) small=(--size small) tiny=(--tiny --warm 1 --repeats 1); fi
only=(${ONLY:+--only "$ONLY"})
{ date -u; python3 --version; nvidia-smi; python3 -m pip list; git log -1 --format=%H; } >"$out/machine.txt" 2>&1

status=0 pids=()
note() { if [ "$status" = 0 ] || [ "$1" != 75 ]; then status="$1"; fi; } # a failure outweighs what is left
shares="${SHARES:-4}" check_seconds="${CHECK_SECONDS:-150}" step_seconds="${STEP_SECONDS:-220}"
for k in $(seq "$shares"); do
  OMP_NUM_THREADS="${OMP_NUM_THREADS:-4}" timeout "$((check_seconds + 50))" python3 -m perf.gpu.check "${device[@]}" "${small[@]}" \
    "${only[@]}" --share "$k/$shares" --seconds "$check_seconds" --out "$out/check-$k.json" >>"$out/first.log" 2>&1 &
  pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid" || note "$?"; done
grep -E "^(FAILED|out of time)" "$out/first.log"
timeout "$((step_seconds + 40))" python3 -m perf.gpu.step "${device[@]}" "${tiny[@]}" "${only[@]}" \
  --seconds "$step_seconds" --out "$out/step.json" 2>&1 |
  tee -a "$out/first.log" || note "$?"
case "$status" in 0 | 75) exit "$status" ;; *) exit 1 ;; esac
