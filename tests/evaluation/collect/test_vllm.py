"""The backend vllm against a module of that name with the signatures of vLLM 0.33, which answers with transformers.

It refuses any argument that the real classes do not have, and notes what it was given.
"""

from __future__ import annotations

import dataclasses
import json
import sys

import pytest
import tiny
from typer.testing import CliRunner

from expunge.benchmarks import named
from expunge.cli import app
from expunge.data.chat import prompt_ids
from expunge.errors import InputError
from expunge.evaluation import table
from expunge.evaluation.collect import cached as asking
from expunge.evaluation.evaluate import EvaluationOptions, evaluate, read
from expunge.evaluation.probe import Ask, Probe

FAKE = """
from dataclasses import dataclass, field
from types import SimpleNamespace
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

NOTES = []

@dataclass
class SamplingParams:
    n: int = 1
    temperature: float = 1.0
    stop: list = None
    stop_token_ids: list = None
    ignore_eos: bool = False
    max_tokens: int = 16
    detokenize: bool = True
    skip_special_tokens: bool = True

class LLM:
    def __init__(self, model, *, tokenizer=None, trust_remote_code=False, dtype="auto", seed=0, max_model_len=None,
                 generation_config="auto", gpu_memory_utilization=0.92, enforce_eager=False):
        self.model = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype)).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.open, self.longest = True, max_model_len
        self.llm_engine = SimpleNamespace(engine_core=SimpleNamespace(shutdown=self.shutdown))
        NOTES.append(("LLM", dtype, seed, max_model_len, generation_config, self.model.dtype))

    def shutdown(self, timeout=None):
        self.open = False
        NOTES.append(("shutdown",))

    def generate(self, prompts, sampling_params=None, *, use_tqdm=True, lora_request=None, priority=None):
        assert self.open and len(prompts) == len(sampling_params)
        NOTES.append(("generate", [list(p["prompt_token_ids"]) for p in prompts], sampling_params))
        return [self.one(p["prompt_token_ids"], s) for p, s in zip(prompts, sampling_params)]

    @torch.no_grad()
    def one(self, ids, s):
        assert s.temperature == 0 and len(ids) + s.max_tokens <= self.longest
        said = []
        while len(said) < s.max_tokens and not (said and said[-1] in s.stop_token_ids):
            said.append(int(self.model(torch.tensor([[*ids, *said]])).logits[0, -1].argmax()))
            if any(stop in self.tokenizer.decode(said, skip_special_tokens=True) for stop in s.stop or []):
                break
        return SimpleNamespace(outputs=[SimpleNamespace(index=0, text="not read", token_ids=tuple(said))])
"""

OWN = """
from expunge.evaluation.benchmark import Benchmark, DataSet, mean_figure
from expunge.evaluation.metrics import probability
from expunge.evaluation.probe import Ask, Probe
from expunge.evaluation.rouge import rouge
ASKS = (Ask(6), Ask(12, stop=("e", "\\n")))
def probes(data):
    return [Probe("p", i, r, {"answer": r.answer}, ASKS[i % 2]) for i, r in enumerate(data.rows("rows"))]
def score(found, retrained=None):
    return [mean_figure("probability", probability(found.mean_logp("p")), "p")]
BENCHMARK = Benchmark("own", "", (DataSet("rows", ""),), probes, score)
"""


@pytest.fixture
def place(workplace, monkeypatch):
    """A benchmark of one's own with two ways of asking, and a module vllm of which the test reads ``NOTES``."""
    monkeypatch.setenv("EXPUNGE_CACHE", str(workplace / "cache"))
    (workplace / "lib").mkdir()
    (workplace / "lib" / "vllm.py").write_text(FAKE)
    (workplace / "own.py").write_text(OWN)
    (workplace / "data").mkdir()
    rows = [{"question": f"Where is {n}?", "answer": f"{n} is far away"} for n in ("Ada", "Bo", "Cy")]
    (workplace / "data" / "rows.json").write_text(json.dumps(rows))
    monkeypatch.syspath_prepend(str(workplace / "lib"))
    monkeypatch.delitem(sys.modules, "vllm", raising=False)
    yield workplace
    sys.modules.pop("vllm", None)


def notes():
    import vllm

    return vllm.NOTES


def test_it_answers_what_transformers_answers(place, tokenizer):
    own = named("own.py")
    plain = evaluate(own, "model", "plain", data="data")
    assert evaluate(own, "model", "fast", data="data", how=EvaluationOptions(backend="vllm")) == plain
    by_place = [sorted(table.read(f"{f}/scores").answers, key=lambda a: a.index) for f in ("plain", "fast")]
    assert by_place[0] == by_place[1] and any(a.text for a in by_place[0])
    assert read("plain")["backend"] == "transformers" and read("fast")["backend"] == "vllm"

    (_, dtype, seed, longest, defaults, weights), (_, prompts, sampling), (last,) = notes()
    assert (dtype, seed, defaults, str(weights), last) == ("float32", 0, "vllm", "torch.float32", "shutdown")
    rows = [p.row for p in own.probes(_data(own))]
    assert prompts == [prompt_ids(r, tokenizer) for r in rows]
    assert [(s.max_tokens, s.stop) for s in sampling] == [(6, []), (12, ["e", "\n"]), (6, [])]
    assert all(s.stop_token_ids == [tokenizer.eos_token_id] for s in sampling)
    assert longest == max(len(p) + s.max_tokens for p, s in zip(prompts, sampling, strict=True))


def _data(own):
    from expunge.evaluation.benchmark import data_of

    return data_of(own, "data")


def test_the_number_format_is_that_of_the_scores(place):
    evaluate(named("own.py"), "model", "out", data="data", how=EvaluationOptions(backend="vllm", dtype="bfloat16"))
    assert notes()[0][1] == "bfloat16" and str(notes()[0][5]) == "torch.bfloat16"


def test_a_backend_is_part_of_what_is_remembered(place):
    own, fast = named("own.py"), EvaluationOptions(backend="vllm")
    evaluate(own, "model", "plain", data="data")
    evaluate(own, "model", "fast", data="data", how=fast)
    before = len(notes())
    evaluate(own, "model", "again", data="data", how=fast)
    assert before == len(notes()) == 3


def test_it_is_shut_down_and_the_model_put_back_when_it_fails(place, tokenizer, monkeypatch):
    import vllm

    from expunge import models
    from expunge.evaluation.collect.vllm import answers

    loaded = models.load("model")
    probes = [Probe("p", 0, r, {}, Ask(3)) for r in _data(named("own.py")).rows("rows")[:1]]
    monkeypatch.setattr(vllm.LLM, "generate", lambda *_, **__: (_ for _ in ()).throw(ValueError("no memory")))
    with pytest.raises(ValueError, match="no memory"):
        answers(loaded, probes)
    assert [n[0] for n in vllm.NOTES] == ["LLM", "shutdown"]
    assert answers(loaded, [dataclasses.replace(probes[0], ask=None)]) == []
    assert len(vllm.NOTES) == 2  # nothing to answer: not started


def test_the_model_waits_in_main_memory(place, monkeypatch):
    from expunge import models
    from expunge.evaluation.collect import vllm

    loaded, moves = models.load("model"), []
    monkeypatch.setattr(loaded.model, "to", lambda device: moves.append((str(device), len(notes()))))
    probes = [Probe("p", 0, r, {}, Ask(3)) for r in _data(named("own.py")).rows("rows")[:1]]
    vllm.answers(loaded, probes)
    assert moves == [("cpu", 0), ("cpu", 3)]  # before vLLM starts, and back to where it was after its end


def test_an_adapter_is_answered_for_merged(place, tokenizer):
    from peft import LoraConfig, get_peft_model

    base = tiny.model(vocab_size=len(tokenizer), num_hidden_layers=1)
    base.name_or_path = base.config._name_or_path = str(place / "model")
    adapted = get_peft_model(base, LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    adapted.peft_config["default"].base_model_name_or_path = str(place / "model")
    adapted.save_pretrained("adapter")
    tokenizer.save_pretrained("adapter")
    own = named("own.py")
    evaluate(own, "adapter", "plain", data="data")
    evaluate(own, "adapter", "fast", data="data", how=EvaluationOptions(backend="vllm"))
    answers = [sorted(table.read(f"{f}/scores").answers, key=lambda a: a.index) for f in ("plain", "fast")]
    assert answers[0] == answers[1]


def test_what_is_wrong_is_told_before_a_model_is_loaded(place, monkeypatch):
    monkeypatch.setattr(asking.models, "load", lambda *_, **__: pytest.fail("a model was loaded"))
    own = named("own.py")
    with pytest.raises(InputError, match="backend must be transformers or vllm, not 'tgi'"):
        evaluate(own, "model", "out", data="data", how=EvaluationOptions(backend="tgi"))
    monkeypatch.setattr(asking, "processes", lambda: type("State", (), {"num_processes": 2}))
    with pytest.raises(InputError, match="the backend vllm runs in one process"):
        evaluate(own, "model", "out", data="data", how=EvaluationOptions(backend="vllm"))
    (place / "lib" / "vllm.py").unlink()
    done = CliRunner().invoke(app, ["bench", "own.py", "--model", "model", "--data", "data", "--backend", "vllm"])
    assert done.exit_code != 0 and "pip install 'expunge[vllm]'" in done.output
