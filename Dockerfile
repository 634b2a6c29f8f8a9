# expunge on the CPU, or with CUDA:
#
#   docker build -t expunge .
#   docker build -t expunge:cuda --build-arg TORCH=cu126 --build-arg EXTRAS=all,gpu .
#   docker run --rm -v "$PWD:/work" expunge run --model MODEL --forget forget.jsonl --out unlearned
#   docker run --rm --gpus all -v "$PWD:/work" expunge:cuda run --model MODEL --forget forget.jsonl --out unlearned
#
# TORCH: a name of PyTorch's package index, cpu or cu126, whose wheels bring CUDA with them: the host needs the driver and
# nvidia-container-toolkit.  EXTRAS: of pyproject.toml, with commas.  What is written belongs to the user 1000; say --user.
ARG PYTHON=3.12
FROM python:${PYTHON}-slim AS build
ARG TORCH=cpu
ARG EXTRAS=all
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/expunge
ENV PATH=/opt/expunge/bin:$PATH
RUN pip install --extra-index-url "https://download.pytorch.org/whl/${TORCH}" "torch>=2.6"
COPY pyproject.toml README.md LICENSE /source/
COPY src /source/src
RUN pip install "/source[${EXTRAS}]"

FROM python:${PYTHON}-slim
COPY --from=build /opt/expunge /opt/expunge
RUN useradd --create-home --uid 1000 expunge && mkdir /work && chown expunge /work
ENV PATH=/opt/expunge/bin:$PATH HF_HOME=/work/.cache/huggingface EXPUNGE_CACHE=/work/.cache/expunge
USER expunge
WORKDIR /work
ENTRYPOINT ["expunge"]
CMD ["--help"]
