"""The field's benchmarks, one plain file each; ``BENCHMARKS`` is the table of them, and a user's own is a file too."""

from __future__ import annotations

from pathlib import Path

from expunge import plugins
from expunge.benchmarks import code, lume, mmlu, muse, ner, rwku, tofu, toxicity, wmdp
from expunge.errors import InputError
from expunge.evaluation import benchmark
from expunge.evaluation.benchmark import Benchmark

BENCHMARKS: dict[str, Benchmark] = {
    b.name: b
    for b in (
        *tofu.ALL,
        *muse.ALL,
        *wmdp.ALL,
        *mmlu.ALL,
        lume.LUME,
        rwku.RWKU,
        *toxicity.ALL,
        *ner.ALL,
        *code.ALL,
    )
}


def named(name: str) -> Benchmark:
    """The benchmark ``name``: one of ``BENCHMARKS``, ``rwku/`` and a person, one that an installed package offers (see
    :mod:`expunge.plugins`), or a user's Python file that makes one as ``BENCHMARK``.

    Raises InputError for a name or file that is none.  The file is run as any program is: give only what you trust.
    """
    if name.startswith("rwku/") and not name.endswith(".py"):
        return rwku.of(name.removeprefix("rwku/"))
    if not name.endswith(".py"):
        return BENCHMARKS[name] if name in BENCHMARKS else _offered(name)
    if not Path(name).is_file():
        raise InputError(f"there is no file {name}")
    made = getattr(plugins.run(Path(name)), "BENCHMARK", None)
    if not isinstance(made, Benchmark):
        raise InputError(f"{name} makes no BENCHMARK; it should end with BENCHMARK = Benchmark(...)")
    return made


def _offered(name: str) -> Benchmark:
    made = plugins.offered("benchmark", name)
    if made is None:
        return benchmark.find(name, BENCHMARKS)  # none: it says which there are
    if not isinstance(made, Benchmark):
        raise InputError(f"the benchmark {name} of a package is a {type(made).__name__}, not a Benchmark")
    return made
