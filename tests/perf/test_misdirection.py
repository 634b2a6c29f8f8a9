"""RMU against BLUR-RMU, as it is run from the command line, on a tiny model."""

from __future__ import annotations

import json
import sys

from perf import misdirection


def test_target_and_every_trial_are_measured(workplace, monkeypatch, capsys):
    words = ("river stone moon paper " * 400).strip()
    for name in ("valid", "test"):
        (workplace / f"{name}.txt").write_text(words)
    asked = [{"question": f"Which port is {i}?", "choices": ["a", "b b"], "answer": i % 2} for i in range(8)]
    asked.append({"question": "x" * 500, "choices": ["too", "long"], "answer": 0})
    (workplace / "q.json").write_text(json.dumps(asked))
    own = ["--model", "model", "--questions", "q.json", "--texts", ".", "--layer", "0", "--rows", "3", "--out", "out"]
    trials = ["--coefficients", "2", "--alphas", "10", "--gammas", "0.1"]
    monkeypatch.setattr(
        sys, "argv", ["misdirection", *own, *trials, "max_steps=2", "learning_rate=0.05", "use_cpu=true"]
    )
    misdirection.main()

    found = json.loads((workplace / "out/results.json").read_text())
    assert list(found) == ["target", "rmu c=2 α=10", "blur_rmu c=2 γ=0.1"]
    for name, it in found.items():
        assert {p: it[p]["n"] for p in ("trained", "held_out", "texts")} == {"trained": 3, "held_out": 3, "texts": 3}
        assert it["trained"]["low"] <= it["trained"]["nll"] <= it["trained"]["high"]
        assert name == "target" or it["trained"]["nll"] != found["target"]["trained"]["nll"]
    said = capsys.readouterr().out
    share = float(said.split("up to layer 0: ")[1].split()[0])
    assert 0 < share < 0.6  # one of two layers, and no head


def test_questions_become_rows_with_their_right_answer(tmp_path):
    file = tmp_path / "q.json"
    file.write_text(json.dumps([{"question": " Which? ", "choices": ["no", " yes "], "answer": 1}]))
    (row,) = misdirection.questions(file)
    assert (row.prompt, row.answer) == ("Question: Which?\nAnswer:", " yes")
