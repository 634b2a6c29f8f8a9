#!/bin/bash
# Train the methods, audit each, the target and the retrained model, and draw the figure; what is there is left alone.
#
#   bash slice.sh TARGET RETRAINED TOFU OUT
# In front of it: ATTACKS=all, ROWS=12, METHODS="pdu npo", BUDGET=budget.toml, LEVEL=MODEL (for methods of that budget that end at
# a level), LEVELS=levels.toml (none with a BUDGET), TARGET_NAME, CONTROL_NAME, DATA_NAME (what the records call them)
set -e
here=$(cd "$(dirname "$0")" && pwd)
target=$1 retrained=$2 tofu=$3 out=$4
python=${PYTHON:-python} levels=${LEVELS:-${BUDGET:+none}}
mkdir -p "$out"
[ -f "$out/rows/level.jsonl" ] || $python "$here/rows.py" "$tofu" "$out/rows"
$python "$here/train.py" "$target" "$out/rows" "$out/runs" "${BUDGET:-$here/budget.toml}" ${LEVEL:+--level "$LEVEL"} $METHODS
[ "$levels" = none ] ||
  $python "$here/train.py" "$target" "$out/rows" "$out/runs" "${levels:-$here/levels.toml}" --holdout "$out/rows/level.jsonl"
$python "$here/audits.py" "$target" "$retrained" "$out/rows" "$out/runs" "$out/audits" --rows "${ROWS:-12}" --attacks "${ATTACKS:-all}"
$python -m expunge report "$out"/audits/*/ --figure "$out/stays.svg" --figure "$out/stays.png"
