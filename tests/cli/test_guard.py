"""``expunge guard`` as a person meets it, on a tiny model."""

from __future__ import annotations

import json
import stat

import pytest
import tiny
from typer.testing import CliRunner

from expunge.cli import app
from expunge.data import chat

MODEL = ["--model", "model", "--targets", "targets.txt", "--max-tokens", "4", "--agent-tokens", "8"]


def call(*args):
    return CliRunner().invoke(app, ["guard", *args])


@pytest.fixture(autouse=True)
def _targets(workplace, tokenizer):
    """Targets, and a model that reads as many bytes as the agents are given."""
    tiny.model(vocab_size=len(tokenizer), max_position_embeddings=8192).save_pretrained(workplace / "model")
    (workplace / "targets.txt").write_text("Ada\nBo | B\n")


def test_ask_shows_the_answer_and_no_more(workplace):
    result = call("ask", "Where does Ada live? {0}", *MODEL)
    assert result.exit_code == 0, result.output
    assert result.stdout == "I'm sorry, but I can't help with that question.\n"
    assert not list(workplace.glob("*.jsonl.log"))


def test_a_trail_is_shown_and_kept_where_one_is_asked_for(workplace):
    own = ["--refusal", "No.", "--retries", "0", "--k", "2", "--j", "1"]
    result = call("ask", "Where does Ada live?", *MODEL, "--trail", "--log", "log", *own)
    assert result.exit_code == 0, result.output
    assert (
        "[vanilla] 1 calls" in result.stdout
        and "suspected: Ada" in result.stdout
        and result.stdout.endswith("\n\nNo.\n")
    )
    assert stat.S_IMODE((workplace / "log").stat().st_mode) == 0o600
    (line,) = map(json.loads, (workplace / "log").read_text().splitlines())
    assert line["outcome"] == "refused" and line["messages"][0]["content"] == "Where does Ada live?"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--targets", "none.txt"], "cannot be read"),
        (["--auditor", "modl"], "did you mean 'model'"),
        (["--j", "9"], "j = 9"),
        (["--prompts", "none"], "no folder none"),
        (["--agents-url", "http://127.0.0.1:9/v1"], "--agents-model"),
        (["--url", "127.0.0.1"], "the address of an endpoint"),
        (["--model", "nowhere/at-all"], "nowhere/at-all"),
        (["--log", "none/log"], "cannot be written"),
    ],
)
def test_bad_input_is_one_sentence(more, message):
    result = call("ask", "Who?", *MODEL, *more)
    assert result.exit_code == 2 and message in result.stderr and result.stderr.strip().count("\n") == 0, result.output
    assert not result.stdout


def test_an_endpoint_that_fails_is_one_sentence_and_in_the_log(workplace):
    pytest.importorskip("openai", reason="needs expunge[guard]")
    result = call("ask", "Who?", *MODEL, "--url", "http://127.0.0.1:9/v1", "--log", "log")
    assert result.exit_code == 2 and "cannot be reached" in result.stderr and not result.stdout
    assert json.loads((workplace / "log").read_text())["outcome"] == "failed"


def test_plain_text_in_place_of_the_chat_template(monkeypatch):
    calls = []
    plain = chat.prompt_ids
    monkeypatch.setattr(chat, "prompt_ids", lambda *a, **kw: calls.append(kw["chat_template"]) or plain(*a, **kw))
    assert call("ask", "Where does Flo live?", *MODEL, "--no-chat-template").exit_code == 0 and set(calls) == {False}
    calls.clear()
    assert call("ask", "Where does Flo live?", *MODEL).exit_code == 0 and set(calls) == {True}


def test_an_empty_question():
    assert call("ask", " ", *MODEL).exit_code == 2


def test_serve_says_where_and_who_may_ask(monkeypatch):
    pytest.importorskip("starlette", reason="needs expunge[guard]")
    from expunge.guard import server

    given = {}
    monkeypatch.setattr(server, "serve", lambda guard, **more: given.update(more, guard=guard))
    done = call("serve", *MODEL, "--port", "81", "--threshold", "3", "--name", "mine")
    assert done.exit_code == 0, done.output
    assert "http://127.0.0.1:81/v1" in done.stdout and not done.stderr
    assert (given["host"], given["port"], given["name"]) == ("127.0.0.1", 81, "mine")
    assert given["guard"].settings.threshold == 3 and [t.name for t in given["guard"].targets] == ["Ada", "Bo"]
    assert "http://[::1]:8000/v1" in call("serve", *MODEL, "--host", "::1").stdout
    assert "there is no key" in call("serve", *MODEL, "--host", "0.0.0.0").stderr


def test_measure(workplace):
    pytest.importorskip("rouge_score", reason="needs expunge[bench]")
    sets = ["--forget", "forget.jsonl", "--retain", "retain.jsonl", "--limit", "2", "--out", "f.json", "--retries", "0"]
    done = call("measure", *MODEL, *sets)
    assert done.exit_code == 0, done.output
    figures = json.loads((workplace / "f.json").read_text())
    assert figures["figures"]["forget"]["n"] == 2 and figures["figures"]["forget"]["refusals"]["value"] == 1
    assert figures["figures"]["retain"]["calls"]["value"] == 1 and figures["targets"] == 2
    assert "forget: 2 questions" in done.stdout
    (workplace / "plain.jsonl").write_text('{"text": "a"}\n')
    done = call("measure", *MODEL, "--forget", "plain.jsonl", "--retain", "retain.jsonl", "--model", "nowhere/at-all")
    assert done.exit_code == 2 and "plain.jsonl, line 1" in done.stderr
    done = call("measure", *MODEL, *sets, "--out", "none/f.json", "--model", "nowhere/at-all")
    assert done.exit_code == 2 and "none/f.json cannot be written" in done.stderr


def test_help_is_there_for_all():
    for command in ("ask", "serve", "measure"):
        assert "mode 600" in " ".join(call(command, "--help").output.replace("│", " ").split())
