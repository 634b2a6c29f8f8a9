"""Options that ``expunge bench`` and ``expunge compare`` share: which models and data, and how the models are asked."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated, TypeAlias

import typer

from expunge.errors import InputError

Model: TypeAlias = Annotated[str | None, typer.Option(help="Hub id, folder, GGUF file or PEFT adapter folder.")]
Data: TypeAlias = Annotated[str | None, typer.Option(help="Folder with the benchmark's files, instead of the Hub.")]
Retrained: TypeAlias = Annotated[
    str | None, typer.Option(help="A model that never saw the forget set: forget quality and PrivLeak need it.")
]
ModelName: TypeAlias = Annotated[str | None, typer.Option(help="What records call the model, instead of its path.")]
DataName: TypeAlias = Annotated[str | None, typer.Option(help="What records call the data, instead of their path.")]
RetrainedName: TypeAlias = Annotated[str | None, typer.Option(help="What records call the retrained model.")]
AnAdapter: TypeAlias = Annotated[
    str | None, typer.Option(help="lora trains LoRA factors; without it all weights train.")
]
Limit: TypeAlias = Annotated[int | None, typer.Option(min=1, help="Only the first rows of each part: a quick look.")]
Dtype: TypeAlias = Annotated[
    str | None, typer.Option(help="Number format of the weights: float32, bfloat16 or float16.  [default: float32]")
]
Device: TypeAlias = Annotated[str | None, typer.Option(help="Where the model runs, such as cuda.")]
ChatTemplate: TypeAlias = Annotated[
    bool | None,
    typer.Option(help="Ask in the tokenizer's chat template, or as plain text; as the benchmark does if left out."),
]
Backend: TypeAlias = Annotated[
    str | None,
    typer.Option(help="What writes the answers: transformers, or vllm where it is installed.  [default: transformers]"),
]
TrustRemoteCode: TypeAlias = Annotated[
    bool | None, typer.Option("--trust-remote-code", help="Run code that the model's repository brings.")
]


def need_extra() -> None:
    """Raise InputError where the packages of ``expunge[bench]`` are not there."""
    if missing := [name for name in ("scipy", "rouge_score") if find_spec(name) is None]:
        raise InputError(f"benchmarks need {' and '.join(missing)}: pip install 'expunge[bench]'")
