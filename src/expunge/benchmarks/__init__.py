"""Published benchmarks, one file each, in the table ``BENCHMARKS``; a user's own is a Python file too."""

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
    """The benchmark ``name``: one of ``BENCHMARKS``, ``rwku/`` and a person, one of an installed package (see
    :mod:`expunge.plugins`), or a user's Python file that defines ``BENCHMARK``.

    Raises InputError for an unknown name, and for a file without a benchmark.  The file is run as any program is: give only
    what you trust.
    """
    if name.startswith("rwku/") and not name.endswith(".py"):
        return rwku.of(name.removeprefix("rwku/"))
    if not name.endswith(".py"):
        return BENCHMARKS[name] if name in BENCHMARKS else _plugin_benchmark(name)
    if not Path(name).is_file():
        raise InputError(f"there is no file {name}")
    loaded = getattr(plugins.run(Path(name)), "BENCHMARK", None)
    if not isinstance(loaded, Benchmark):
        raise InputError(f"{name} makes no BENCHMARK; it should end with BENCHMARK = Benchmark(...)")
    return loaded


def _plugin_benchmark(name: str) -> Benchmark:
    value = plugins.offered("benchmark", name)
    if value is None:
        return benchmark.find(name, BENCHMARKS)  # raises InputError with the names that exist
    if not isinstance(value, Benchmark):
        raise InputError(f"the benchmark {name} of a package is a {type(value).__name__}, not a Benchmark")
    return value
