"""Reveal as a user runs it, on a tiny model: the folder, the resume, bad input."""

from __future__ import annotations

import json
import shutil
import stat

import pytest
import tiny
from launch import once

from expunge.data.example import Row
from expunge.data.sources import load_rows
from expunge.errors import InputError
from expunge.reveal import metas
from expunge.reveal import run as module
from expunge.reveal.run import reveal

SMALL = {
    "arms": 8, "rounds": 2, "queries": 2, "initial": 1, "responses": 3, "best": 1, "harvest": 3, "neutral": 8,
    "max_new_tokens": 10, "instruction_tokens": 16, "shortest": 1, "max_perplexity": 1e9, "threshold": 0.1,
    "top_p": 1.0,
}  # fmt: skip


@pytest.fixture
def settings(workplace, two_layers, monkeypatch):
    """What a tiny untrained model needs: any line is a question, whether or not it came to an end."""
    monkeypatch.setattr(
        module.generate,
        "neutral_rows",
        lambda *a, **k: [Row(({"role": "user", "content": f"q {i}"},), f"answer {i}") for i in range(8)],
    )
    (workplace / "own.py").write_text(
        "def length(text):\n    return 0 if 'answer' in text else (1 + len(text) % 3) / 3\n"
    )
    return SMALL | {"topic": "Ada", "scorer": "own.py:length", "out": "found"}


@pytest.fixture
def finished(settings, workplace, tmp_path_factory):
    """The rows that a search of ``settings`` reveals; its folder is ``found/``, and one search serves many tests."""

    def make(shared):
        rows = reveal("model", **settings).rows
        (shared / "rows.json").write_text(json.dumps(rows))
        shutil.move(workplace / "found", shared / "found")

    shared = once(tmp_path_factory, "reveal", make)
    shutil.copytree(shared / "found", workplace / "found")
    return json.loads((shared / "rows.json").read_text())


def test_a_model_reveals_a_forget_set_that_a_run_can_read(finished, workplace):
    files = {f.name for f in (workplace / "found").iterdir()}
    assert files == {"revealed.jsonl", "neutral.jsonl", "queries.jsonl", "arms.json", "reveal.json"}
    private = files - {"reveal.json"}
    assert all(stat.S_IMODE((workplace / "found" / name).stat().st_mode) == 0o600 for name in private)
    rows = load_rows(workplace / "found/revealed.jsonl")
    assert [r.answer for r in rows] == [r["answer"] for r in finished] and rows
    assert len(load_rows(workplace / "found/neutral.jsonl")) == 8
    record = json.loads((workplace / "found/reveal.json").read_text())
    assert record["queries"] == 4 and record["revealed"] == len(rows)
    assert record["model"]["fingerprint"].startswith("sha256:")
    texts = [*(r["answer"] for r in finished), *(r["question"] for r in finished)]
    assert not any(t in json.dumps(record, ensure_ascii=False) for t in texts if len(t) > 3)


def test_the_same_seed_reveals_the_same(finished, settings, workplace):
    again = reveal("model", **(settings | {"out": "again"}))
    other = reveal("model", **(settings | {"out": "other", "seed": 1}))
    assert finished == again.rows != other.rows


@pytest.mark.parametrize("lines", [0, 1, 3, 5])
def test_an_interrupted_search_goes_on(finished, settings, workplace, monkeypatch, lines):
    log = (workplace / "found/queries.jsonl").read_text()
    lines_before = log.splitlines(keepends=True)
    (workplace / "found/queries.jsonl").write_text(
        "".join(lines_before[:lines]) + lines_before[lines][: len(lines_before[lines]) // 2]
    )
    (workplace / "found/revealed.jsonl").unlink()
    monkeypatch.setattr(module.arms, "instructions", _only_to_vary(module.arms.instructions))
    assert reveal("model", **settings).rows == finished
    for again, before in zip((workplace / "found/queries.jsonl").read_text().splitlines(), lines_before, strict=True):
        again, before = json.loads(again), json.loads(before)
        assert again.pop("scores") == pytest.approx(
            before.pop("scores"), abs=1e-6
        )  # texts are embedded in other batches
        assert again == before


def _only_to_vary(real):
    def instructions(*args, **kwargs):
        assert args[2].seeds != metas.topic_prompt("Ada").seeds, "the arms were written before"
        return real(*args, **kwargs)

    return instructions


def test_the_topic_alone_is_a_scorer_too(settings, workplace):
    result = reveal("model", **(settings | {"scorer": None}))
    assert all(0 <= r["relevance"] <= 1 for r in result.rows)


def test_seed_instructions_alone_are_enough(settings, workplace):
    """Relevance is then how near an answer is to what the model says to them."""
    result = reveal("model", **(settings | {"topic": None, "scorer": None, "seeds": ["Who is Ada?", "Where is Bo?"]}))
    assert result.record["queries"] == 4
    values = [v for line in (workplace / "found/queries.jsonl").open() for v in json.loads(line)["relevance"]]
    assert all(0 <= v <= 1 for v in values) and len(set(values)) > 1


def test_beginnings_are_written_as_prompt_and_completion(settings, workplace):
    result = reveal("model", **(settings | {"form": "beginning"}))
    assert {tuple(r)[:2] for r in result.rows} == {("prompt", "completion")}
    rows = load_rows(workplace / "found/revealed.jsonl")
    assert all(isinstance(r.prompt, str) for r in rows) and rows


@pytest.mark.parametrize("kind", ["question", "beginning"])
def test_instructions_stand_in_a_template_for_the_model_and_in_the_rows_alike(settings, workplace, monkeypatch, kind):
    """The model is asked the whole prompt, braces and all; the log and the search keep the bare instruction."""
    prompted = []
    real = module.generate.prompt_ids
    monkeypatch.setattr(module.generate, "prompt_ids", lambda row, *a, **k: prompted.append(row) or real(row, *a, **k))
    template = 'Answer {"in": JSON}.\nSentence: {instruction} End.'
    result = reveal("model", **(settings | {"template": template, "form": kind}))
    logged = [json.loads(line) for line in (workplace / "found/queries.jsonl").read_text().splitlines()]
    bare = {q for entry in logged for q in entry["questions"]}
    whole = {'Answer {"in": JSON}.\nSentence: ' + q + " End." for q in bare}
    prompts = [row.prompt if kind == "beginning" else row.prompt[0]["content"] for row in prompted]
    assert whole <= set(prompts)
    name = "prompt" if kind == "beginning" else "question"
    assert result.rows and {r[name] for r in result.rows} <= whole


@pytest.mark.parametrize("template", ["no slot", "{instruction} and {instruction}"])
def test_a_template_without_its_place_is_told_before_a_model_is_loaded(settings, template):
    with pytest.raises(InputError, match=r"must hold \{instruction\} once"):
        reveal("no-such-model", **(settings | {"template": template}))


def test_a_topic_has_beginnings_too():
    questions = module.make({"model": "m", "topic": "Ada"}).meta
    beginnings = module.make({"model": "m", "topic": "Ada", "form": "beginning"}).meta
    assert "Questions about Ada" in questions.text and "Beginnings of texts about Ada" in beginnings.text
    assert not any(seed.endswith((".", "?")) for seed in beginnings.seeds)


@pytest.mark.parametrize("chooser", ["random", "bandit"])
def test_random_search_asks_as_many(settings, workplace, chooser):
    result = reveal("model", **(settings | {"chooser": chooser}))
    assert result.record["queries"] == 4


def test_another_model_in_the_same_folder_is_told(finished, settings, workplace, tokenizer):
    tiny.model(seed=1, vocab_size=len(tokenizer)).save_pretrained(workplace / "other")
    tokenizer.save_pretrained(workplace / "other")
    with pytest.raises(InputError, match="another model"):
        reveal("other", **settings)


def test_what_is_written_over_stays_until_the_model_is_loaded(finished, settings, workplace):
    before = (workplace / "found/revealed.jsonl").read_text()
    with pytest.raises(InputError):
        reveal("no-such-model", **(settings | {"overwrite": True}))
    assert (workplace / "found/revealed.jsonl").read_text() == before


def test_files_of_somebody_else_are_not_taken_for_a_search(settings, workplace):
    (workplace / "found").mkdir()
    (workplace / "found/neutral.jsonl").write_text('{"question": "mine", "answer": "mine"}\n')
    with pytest.raises(InputError, match=r"found holds neutral\.jsonl, which expunge did not write"):
        reveal("model", **settings)
    (workplace / "found/reveal.json").write_text("{")
    with pytest.raises(InputError, match=r"found holds neutral\.jsonl, which expunge did not write"):
        reveal("model", **(settings | {"overwrite": True}))
    assert "mine" in (workplace / "found/neutral.jsonl").read_text()


def test_other_settings_in_the_same_folder_are_told(finished, settings, workplace):
    with pytest.raises(InputError, match="other settings"):
        reveal("model", **(settings | {"seed": 1}))
    assert reveal("model", **(settings | {"seed": 1, "overwrite": True})).record["settings"]["seed"] == 1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"topic": None, "scorer": None}, "say what the model should forget"),
        ({"topic": None, "scorer": None, "heading": "Questions:"}, "say what the model should forget"),
        ({"topic": None}, "gives? neither|says nothing of what to ask"),
        ({"scorer": "entty:Ada"}, "did you mean 'entity'"),
        ({"querys": 3}, "did you mean 'queries'"),
        ({"responses": 1}, "at least 2"),
        ({"top_p": 0}, "sampling needs"),
        ({"temperature": float("nan")}, "temperature must be a finite number"),
        ({"dimension": 30_000}, "dimension = 30000 does not fit"),
        ({"harvest": -1}, "harvest must be at least 0"),
        ({"shortest": 25}, "at most 10 tokens long"),
        ({"embeddings": "no-such-encoder"}, "sentence-transformers"),
        ({"out": "own.py"}, r"own\.py: a file of that name is in the way"),
        ({"out": "own.py/found"}, r"own\.py: a file of that name is in the way"),
        ({"seeds": ["two\nlines"]}, "one line"),
        ({"topic": "  "}, "topic is an empty text"),
    ],
)
def test_bad_input_is_told_before_the_model_is_loaded(settings, monkeypatch, change, sentence):
    monkeypatch.setattr(module.models, "load", lambda *a, **k: pytest.fail("loaded"))
    with pytest.raises(InputError, match=sentence):
        reveal("model", **(settings | change))


def test_the_command(settings, workplace):
    from typer.testing import CliRunner

    from expunge.cli import app

    overrides = [f"{k}={v}" for k, v in SMALL.items()]
    arguments = [
        "reveal",
        "--model",
        "model",
        "--topic",
        "Ada",
        "--scorer",
        "own.py:length",
        "--out",
        "found",
        *overrides,
    ]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "4 instructions asked of" in result.output and "revealed.jsonl" in result.output
    refused = CliRunner().invoke(app, ["reveal", "--model", "model", "queries"])
    assert refused.exit_code == 2 and "write key=value" in refused.output


def test_neutral_rows_that_the_scorer_finds_relevant_are_drawn_again(settings, workplace, monkeypatch):
    seeds = []

    def rows(*args, seed, **kw):
        seeds.append(seed)
        return [Row(({"role": "user", "content": f"{seed} {i}"},), "rude" if i % 2 else "answer") for i in range(8)]

    monkeypatch.setattr(module.generate, "neutral_rows", rows)
    reveal("model", **settings)
    neutral = load_rows(workplace / "found/neutral.jsonl")
    assert [r.answer for r in neutral] == ["answer"] * 8 and len(set(seeds)) == 2


def test_a_model_that_reveals_unasked_is_told(settings, workplace, monkeypatch):
    rude = [Row(({"role": "user", "content": f"{i}"},), "rude") for i in range(8)]
    monkeypatch.setattr(module.generate, "neutral_rows", lambda *a, **k: rude)
    with pytest.raises(InputError, match="of 24 neutral rows that the model wrote, 24 hold what is to be revealed"):
        reveal("model", **settings)
