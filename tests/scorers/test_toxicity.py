"""Toxicity: HateSonar's formula by hand and against onnxruntime, the packages' own values, and a missing package."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from golden import FIXTURES, whole

from expunge.errors import InputError
from expunge.scorers import scorer, toxicity
from expunge.stats import auc

HARMLESS = ["The cat sat on the mat.", "What a beautiful day.", "The river is forty miles long.", ""]
HARMFUL = ["You are a fucking idiot.", "Shut up, you stupid bitch."]


def test_hatesonars_formula_by_hand(monkeypatch):
    # columns: hate, offensive, neither, idf
    weights = np.array([[1.0, 0.0, 0.0, 2.0], [0.0, 2.0, -1.0, 1.0]])
    monkeypatch.setattr(toxicity, "_sonar", lambda: (weights, np.array([0.0, 0.0, 1.0]), {"bad": 0, "awful": 1}))
    # "Bad, bad awful": tf·idf (4, 1), norm √17, so z = (4, 2, √17 - 1)/√17
    z = np.array([4, 2, math.sqrt(17) - 1]) / math.sqrt(17)
    expected = 1 - math.exp(z[2]) / np.exp(z).sum()
    assert toxicity.tweets(["Bad, bad awful thing", "unknown words"]) == pytest.approx([expected, 2 / (2 + math.e)])


def test_hatesonars_formula_is_what_onnxruntime_makes_of_its_weights(monkeypatch):
    """``hatesonar.json``: the weights of these texts' words, and what onnxruntime said of each text with all weights."""
    cut = json.loads((FIXTURES / "hatesonar.json").read_text(encoding="utf-8"))
    columns = {word: i for i, word in enumerate(cut["words"])}
    monkeypatch.setattr(toxicity, "_sonar", lambda: (np.array(cut["weights"]), np.array(cut["intercepts"]), columns))
    assert toxicity.tweets(cut["texts"]) == pytest.approx(1 - np.array(cut["neither"]), abs=1e-6)


def test_hatesonar_is_what_onnxruntime_makes_of_the_same_file():
    onnx = pytest.importorskip("onnx", reason="needs expunge[toxicity]")
    runtime = pytest.importorskip("onnxruntime", reason="needs expunge[toxicity]")
    hatesonar = pytest.importorskip("hatesonar", reason="needs expunge[toxicity]")
    model = onnx.load(str(Path(hatesonar.__file__).parent / "model" / "model.onnx"))
    for node in model.graph.node:
        if node.op_type == "StringNormalizer":  # its own locale, en_US, is not on every machine
            node.attribute.append(onnx.helper.make_attribute("locale", "C"))
    session = runtime.InferenceSession(model.SerializeToString())
    texts = [*HARMLESS[:3], *HARMFUL, "Café naïve don't 123 the the the", "zzzz"]
    theirs = [1 - session.run(None, {"text": np.array([t], dtype=object)})[1][0][2] for t in texts]
    assert scorer("toxicity:hatesonar")(texts) == pytest.approx(theirs, abs=1e-6)


@pytest.mark.parametrize(("spec", "package"), [("toxicity", "profanity_check"), ("toxicity:hatesonar", "onnx")])
def test_plain_cases(spec, package):
    pytest.importorskip(package, reason="needs expunge[toxicity]")
    values = scorer(spec)([*HARMLESS, *HARMFUL])
    assert values[:4].max() < 0.5 < 0.9 < values[4:].min()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "package", "least"), [("toxicity", "profanity_check", 0.93), ("toxicity:hatesonar", "onnx", 0.78)]
)
def test_toxic_answers_are_told_from_encyclopedia(spec, package, least):
    pytest.importorskip(package, reason="needs expunge[toxicity]")
    answers, neutral = whole("toxicity/extsub/toxic_test.json"), whole("wikitext2/test.txt")
    toxic = [row["output"] for row in json.loads(answers.read_text())]
    plain = [line.strip() for line in neutral.read_text().splitlines() if line.strip() and "=" not in line]
    plain = [line.split(" . ")[0] for line in plain][:500]
    assert auc(scorer(spec)(plain), scorer(spec)(toxic)) > least  # "members" have the lower score


FAKE = """
import json
class Detoxify:
    def __init__(self, kind):
        {loading}
        self.seen = []
    def predict(self, texts):
        self.seen.append(len(texts))
        values = [0.1 * len(t) for t in texts]
        return {{"toxicity": values if len(values) > 1 else values[0], "insult": values}}
"""


@pytest.fixture
def detoxify(tmp_path, monkeypatch):
    """A stand-in for the package, which squeezes as that one does: one text has a bare number."""

    def install(loading="assert kind == 'unbiased'"):
        (tmp_path / "detoxify.py").write_text(FAKE.format(loading=loading))
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "detoxify", raising=False)
        toxicity._detoxify.cache_clear()

    yield install
    toxicity._detoxify.cache_clear()
    sys.modules.pop("detoxify", None)


def test_detoxify_is_loaded_at_the_first_text_and_asked_in_batches(detoxify):
    detoxify()
    judge = scorer("toxicity:detoxify")
    assert toxicity._detoxify.cache_info().currsize == 0
    texts = ["x" * (i % 7) for i in range(2 * toxicity.BATCH + 1)]
    assert judge(texts) == pytest.approx([0.1 * (i % 7) for i in range(65)])
    assert toxicity._detoxify().seen == [32, 32, 1]


def test_detoxify_without_a_network_is_one_sentence(detoxify):
    detoxify("raise OSError('no route')")
    with pytest.raises(InputError, match=r"could not load its model, .*: OSError; .* toxicity:hatesonar"):
        scorer("toxicity:detoxify")(["a"])


@pytest.mark.parametrize(
    ("spec", "extra"), [("toxicity", "toxicity"), ("toxicity:hatesonar", "toxicity"), ("toxicity:detoxify", "detoxify")]
)
def test_a_missing_package_is_said_at_once(spec, extra, monkeypatch):
    monkeypatch.setattr(toxicity, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=rf"pip install 'expunge\[{extra}\]'"):
        scorer(spec)


def test_another_hatesonar_is_refused(tmp_path, monkeypatch):
    pytest.importorskip("onnx", reason="needs expunge[toxicity]")
    (tmp_path / "hatesonar").mkdir()
    (tmp_path / "hatesonar" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "hatesonar", raising=False)
    toxicity._sonar.cache_clear()
    with pytest.raises(InputError, match="not the one whose model is read here"):
        toxicity.tweets(["a"])
    toxicity._sonar.cache_clear()
