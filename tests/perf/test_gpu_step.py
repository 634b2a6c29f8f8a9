"""The step on a GPU, rehearsed on a CPU with tiny shapes: every side runs, and the figures are what they are called."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from perf.gpu import lengths, rows, step, table, work
from perf.gpu.shapes import TINY
from torch.utils.flop_counter import FlopCounterMode

from expunge.forward.view import IGNORE

CPU = torch.device("cpu")
ONLY = r"tiny_lora/2.2/pdu|tiny_lora/4.4/npo_kl|tiny/2.2/(rmu|blur_npo)|end"


def shallow(shape):
    """``shape`` with two layers and few rows: no figure here is compared with another shape's."""
    return replace(shape, sizes={**shape.sizes, "num_hidden_layers": 2}, rows=8)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The record of some rows of each shape, side and kind of method."""
    out = tmp_path_factory.mktemp("step") / "step.json"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rows, "silence", lambda: None)
        patched.setattr(step, "TINY", {name: shallow(shape) for name, shape in TINY.items()})
        code = step.main(
            ["--device", "cpu", "--tiny", "--warm", "1", "--repeats", "1", "--only", ONLY, "--out", str(out)]
        )
    assert code == 0, out.read_text()
    return json.loads(out.read_text())


def test_every_side_is_measured(measured):
    found = measured["rows"]
    assert {row["status"] for row in found.values()} == {"passed"}
    names = set(found)
    assert {f"tiny_lora/2+2/pdu/{side}" for side in ("library", "naive", "floor")} <= names
    assert {f"tiny_lora/4+4/npo_kl/{side}/checkpointing" for side in ("library", "naive")} <= names
    for name, row in found.items():
        if not name.endswith("/end"):
            f = row["figures"]
            assert f["tokens"] == pytest.approx(f["tokens_a_step"] / f["seconds"])
            rate = found[f"{name.split('/')[0]}/end"]["figures"]["rate"]
            assert f["share"] == pytest.approx(f["operations"] / f["seconds"] / rate)
            assert f["share"] > 0 and f["gib"] > 0.1


def test_the_table_shows_the_record(measured, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{table.BEGIN}\nnothing yet\n{table.END}\nafter\n")
    (tmp_path / "log.json").write_text(json.dumps(measured))
    assert step.main(["--table", str(tmp_path / "log.json"), str(page)]) == 0
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "nothing yet" not in text
    ours, theirs = (measured["rows"][f"tiny_lora/2+2/pdu/{side}"]["figures"] for side in ("library", "naive"))
    (line,) = [row for row in text.splitlines() if row.startswith("| 2+2 | pdu |")]
    cells = [c.strip() for c in line.strip("|").split("|")]
    assert cells[2] == f"{ours['seconds']:.3f}" and cells[7] == f"{theirs['seconds']:.3f}"
    assert (
        cells[10] == f"{ours['tokens'] / theirs['tokens']:.2f} ×"
        and cells[11] == f"{ours['gib'] / theirs['gib']:.2f} ×"
    )
    with pytest.raises(ValueError, match="to write the table between"):
        table.write_table(measured, tmp_path / "log.json")


def test_what_does_not_fit_stands_in_the_table(measured):
    log = json.loads(json.dumps(measured))
    log["rows"]["tiny_lora/2+2/pdu/naive"] = {"status": "out of memory", "reason": "CUDA", "seconds": 1.0}
    (line,) = [row for row in table.table(log).splitlines() if row.startswith("| 2+2 | pdu |")]
    assert line.endswith("| out of memory | – | – | – | – |")


@pytest.mark.parametrize("lora", [False, True])
def test_the_formula_counts_the_products_that_torch_counts(lora):
    """The decoder's forward and backward under torch's own counter, less attention's products."""
    shape = TINY["tiny_lora" if lora else "tiny"]
    bench = step.Bench(shape, CPU, 1, 1)
    net, method = step.prepared(bench, "pdu")
    base = net.get_base_model() if lora else net
    ids = torch.randint(1, 256, (2, 3))
    counter = FlopCounterMode(display=False)
    with counter, bench.autocast():
        hidden = base.model(input_ids=ids, use_cache=False).last_hidden_state
        hidden.backward(torch.ones_like(hidden))
    counts = counter.get_flop_counts()["Global"]
    products = sum(n for op, n in counts.items() if "attention" not in str(op) and "bmm" not in str(op))
    formula = work.operations(net, method, {"forget": (6, 0), "retain": (0, 0)})
    assert formula == pytest.approx(products, rel=0.02), counts  # LoRA's first layer needs no gradient of its input


def test_head_and_reference_count_once_a_labelled_token():
    bench = step.Bench(TINY["tiny"], CPU, 1, 1)
    head = 256 * 32
    for name, passes in (("pdu", 2 + 6), ("npo", 6 + 6), ("npo_kl", 6 + 6 + 2)):
        net, method = step.prepared(bench, name)
        tokens = dict.fromkeys(("forget", "retain"), (10, 1))
        without = dict.fromkeys(tokens, (10, 0))
        assert work.operations(net, method, tokens) - work.operations(net, method, without) == passes * head


def test_rmu_is_counted_up_to_its_layer_only():
    net, method = step.prepared(step.Bench(TINY["tiny"], CPU, 1, 1), "rmu")
    assert method.chosen["layer"] == 1  # of five layers, at the published depth
    layer = 32 * (32 + 16 + 16 + 32) + 3 * 32 * 48
    trained = 2 * 32 * 48  # down_proj of both
    assert work.operations(net, method, {"forget": (7, 3), "retain": (0, 0)}) == 7 * (
        2 * 2 * layer + 2 * 2 * layer + 2 * trained
    )


def test_a_row_leaves_the_model_as_it_was():
    bench = step.Bench(TINY["tiny_lora"], CPU, 1, 1)
    before = {n: p.detach().clone() for n, p in bench.model().named_parameters()}
    for side, name in (("library", "pdu"), ("naive", "rmu")):
        step.one(bench, side, name, 2, False, lambda: 1e9)
    after = dict(bench.model().named_parameters())
    assert after.keys() == before.keys() and all(torch.equal(after[n], before[n]) for n in before)


def test_out_of_memory_is_a_row_and_the_next_one_begins_alike(monkeypatch):
    def full(bench, name, batch, **_):
        step.prepared(bench, name)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

    monkeypatch.setattr(step, "SIDES", {**step.SIDES, "naive": full})
    some = rows.chosen(step.every_row(TINY, CPU, 1, 1), r"tiny_lora/2.2/pdu/(naive|floor)")
    found = rows.run(some, CPU)["rows"]
    assert [row["status"] for row in found.values()] == ["out of memory", "passed"]


def test_rows_are_as_long_as_the_table_says():
    pairs = lengths.table()["forget"]
    made = lengths.examples(pairs, 1000, 0)
    assert len(pairs) == 400 and 60 < sum(map(sum, pairs)) / 400 < 120
    labelled = [sum(y != IGNORE for y in e.labels) for e in made]
    assert [[len(e.input_ids) - n, n] for e, n in zip(made, labelled, strict=True)] == [list(p) for p in pairs]
