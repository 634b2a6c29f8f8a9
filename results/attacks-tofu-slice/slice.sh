#!/bin/bash
# Train the methods, audit each, the target and the retrained model, and draw the figure; what is there is left alone.
#
#   bash slice.sh TARGET RETRAINED TOFU OUT      ATTACKS=all ROWS=12 METHODS="pdu npo" in front: other than the defaults
set -e
here=$(cd "$(dirname "$0")" && pwd)
target=$1 retrained=$2 tofu=$3 out=$4
python=${PYTHON:-python}
mkdir -p "$out"
[ -f "$out/rows/holdout.jsonl" ] || $python "$here/rows.py" "$tofu" "$out/rows"
$python "$here/train.py" "$target" "$out/rows" "$out/runs" $METHODS
audit() { # NAME MODEL
  [ -f "$out/audits/$1/audit.json" ] && return
  /usr/bin/env time -p -o "$out/audits.$1.time" $python -m expunge audit --model "$2" --target "$target" --retrained "$retrained" \
    --forget "$out/rows/forget.jsonl" --retain "$out/rows/kept.jsonl" --holdout "$out/rows/holdout.jsonl" \
    --rows "${ROWS:-12}" --attacks "${ATTACKS:-all}" --no-rewrite --wrong 3 --max-new-tokens 32 \
    --model-name "$1" --target-name tofu20-target --control-name tofu20-retrained --data-name tofu-slice \
    --title "$1 under attack" --out "$out/audits/$1" --overwrite
}
audit tofu20-retrained "$retrained"
audit tofu20-target "$target"
audits=()
for run in "$out"/runs/*/; do
  name=$(basename "$run")
  [ -f "$run/run.json" ] || continue
  audit "$name" "$run/model"
done
for one in "$out"/audits/*/; do [ -f "$one/audit.json" ] && audits+=("${one%/}"); done
$python -m expunge report "${audits[@]}" --figure "$out/stays.svg" --figure "$out/stays.png"
