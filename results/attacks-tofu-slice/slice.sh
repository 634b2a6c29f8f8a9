#!/bin/bash
# Train the methods, audit each, the target and the retrained model, and draw the figure; what is there is left alone.
#
#   bash slice.sh TARGET RETRAINED TOFU OUT
# In front of it: ATTACKS=all, ROWS=12, METHODS="pdu npo", BUDGET=budget.toml, LEVEL=MODEL (for methods that end at a level),
# TARGET_NAME, CONTROL_NAME, DATA_NAME (what the records call them)
set -e
here=$(cd "$(dirname "$0")" && pwd)
target=$1 retrained=$2 tofu=$3 out=$4
python=${PYTHON:-python}
TARGET_NAME=${TARGET_NAME:-tofu20-target} CONTROL_NAME=${CONTROL_NAME:-tofu20-retrained} DATA_NAME=${DATA_NAME:-tofu-slice}
mkdir -p "$out"
[ -f "$out/rows/holdout.jsonl" ] || $python "$here/rows.py" "$tofu" "$out/rows"
$python "$here/train.py" "$target" "$out/rows" "$out/runs" "${BUDGET:-$here/budget.toml}" ${LEVEL:+--level "$LEVEL"} $METHODS
audit() { # NAME MODEL
  [ -f "$out/audits/$1/audit.json" ] && return
  /usr/bin/env time -p -o "$out/audits.$1.time" $python -m expunge audit --model "$2" --target "$target" --retrained "$retrained" \
    --forget "$out/rows/forget.jsonl" --retain "$out/rows/kept.jsonl" --holdout "$out/rows/holdout.jsonl" \
    --rows "${ROWS:-12}" --attacks "${ATTACKS:-all}" --no-rewrite --wrong 3 --max-new-tokens 32 \
    --model-name "$1" --target-name "$TARGET_NAME" --control-name "$CONTROL_NAME" --data-name "$DATA_NAME" \
    --title "$1 under attack" --out "$out/audits/$1" --overwrite
}
audit "$CONTROL_NAME" "$retrained"
audit "$TARGET_NAME" "$target"
audits=()
for run in "$out"/runs/*/; do
  name=$(basename "$run")
  [ -f "$run/run.json" ] || continue
  audit "$name" "$run/model"
done
for one in "$out"/audits/*/; do [ -f "$one/audit.json" ] && audits+=("${one%/}"); done
$python -m expunge report "${audits[@]}" --figure "$out/stays.svg" --figure "$out/stays.png"
