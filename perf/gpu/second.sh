#!/usr/bin/env bash
# The second of two runs on a machine with a GPU and no network: TOFU on SmolLM2-135M, what is left of it.  7 minutes on one H100.
#
#   OUT=build/gpu perf/gpu/second.sh TOFU.tar.xz     made by: python -m perf.gpu.tofu --pack FOLDER TOFU.tar.xz
#   TINY=1 OUT=build/tiny perf/gpu/second.sh         the same in small on a CPU, as a rehearsal
#
# The trained weights stay in EXPUNGE_TOFU (build/tofu if not given), so that a third run on the same machine goes on; what is to
# be kept lies in OUT: results.tar.gz, tofu.log.  Exit status 75: more is to be done.
set -uo pipefail
cd "$(dirname "$0")/../.."
out="${OUT:-build/gpu}" work="${EXPUNGE_TOFU:-build/tofu}"
mkdir -p "$out"
source perf/gpu/install.sh
given=(--data "${1:-}" --time-limit "${SECONDS_AT_MOST:-390}")
if [ -n "${TINY:-}" ]; then given=(--tiny); fi
python3 -m perf.gpu.tofu "${given[@]}" --out "$work" 2>&1 | tee -a "$out/tofu.log"
status="${PIPESTATUS[0]}"
if [ -d "$work/results" ]; then tar -czf "$out/results.tar.gz" -C "$work" results; fi
exit "$status"
