"""``tests`` mirrors ``src/expunge``: a module is tested by the file of its name in the folder of its room."""

from __future__ import annotations

import inspect
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "expunge"
WHOLE = {
    "bad_inputs",
    "containers",
    "contract",
    "examples",
    "layout",
    "notebooks",
    "snippets",
    "real_records",
    "recipes",
    "release_script",
    "results",
    "site",
}  # of the repository, not of one module


def lies_beside_its_module(test: Path) -> bool:
    """Whether the module that ``test`` names (``test_MODULE.py`` or ``test_MODULE_PART.py``) is where it should be."""
    room = test.parent.relative_to(ROOT / "tests")
    name = test.stem.removeprefix("test_")
    home = ROOT / room if room.parts[:1] == ("perf",) else SOURCE / room
    modules = {file.stem for file in home.glob("*.py")} | {file.parent.name for file in home.glob("*/__init__.py")}
    modules.add(home.name)  # the room itself
    return any(name == module or name.startswith(f"{module}_") for module in modules)


def test_every_test_lies_where_its_module_does():
    tests = [t for t in (ROOT / "tests").rglob("test_*.py") if t.stem.removeprefix("test_") not in WHOLE]
    assert len(tests) > 50
    assert [str(t.relative_to(ROOT)) for t in tests if not lies_beside_its_module(t)] == []


def test_every_room_has_tests():
    rooms = {file.parent.relative_to(SOURCE) for file in SOURCE.rglob("*.py")}
    tested = {t.parent.relative_to(ROOT / "tests") for t in (ROOT / "tests").rglob("test_*.py")}
    assert [str(room) for room in rooms if room not in tested] == []


def test_a_script_written_against_0_1_finds_its_names():
    from expunge import InputError, Result, combine, losses, method, methods, unlearn
    from expunge.benchmarks import named
    from expunge.compare import compare
    from expunge.evaluation import benchmark, evaluate, metrics, probe, rouge, table
    from expunge.forward import ForwardPass, see
    from expunge.models import linear_layers, load, save
    from expunge.release import Release, release, run
    from expunge.trainer import UnlearningTrainer

    functions = (
        unlearn,
        named,
        compare,
        see,
        linear_layers,
        load,
        save,
        release,
        run,
        methods.pdu,
        method.build,
        losses.npo,
    )
    assert all(inspect.isfunction(f) for f in functions)
    assert all(
        inspect.isclass(c) for c in (InputError, Result, ForwardPass, Release, UnlearningTrainer, combine.Bilevel)
    )
    of_evaluation = (benchmark.Benchmark, probe.Probe, table.Collected, metrics.truth_ratio, rouge.rouge, evaluate.read)
    assert all(callable(f) for f in of_evaluation)
    assert probe.How is probe.EvaluationOptions
