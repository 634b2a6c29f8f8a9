"""The push, against a stand-in for the Hub's HTTP API: what arrives there, and what is refused before anything does."""

from __future__ import annotations

import json

import pytest
import tiny_hub
from typer.testing import CliRunner

from expunge import hub as room
from expunge import unlearn
from expunge.cli import app
from expunge.errors import InputError
from expunge.hub import Push, card, push_to_hub

SECRET = b"Zebulon"
RUN = {"forget": "forget.jsonl", "retain": "retain.jsonl", "method": "pdu", "max_steps": 1, "lr": 0.02, "use_cpu": True,
       "disable_tqdm": True, "fluency_rows": 0}  # fmt: skip


def command(*words: str):
    return CliRunner().invoke(app, list(map(str, words)))


def test_a_push_puts_weights_tokenizer_and_card_there_in_one_commit(hub, run_folder):
    found = command("push", run_folder, "--to", "me/forgetful", "--private", "--json")
    assert found.exit_code == 0, found.output
    there, said = hub.repos["me/forgetful"], json.loads(found.stdout)
    assert hub.private["me/forgetful"] and len(hub.commits) == 1 and "pdu_level" in hub.commits[0]
    assert there["model.safetensors"] == (run_folder / "model" / "model.safetensors").read_bytes()
    assert sorted(there) == said["files"] and {"README.md", "config.json", "tokenizer.json"} <= set(there)
    assert not {"run.json", "report.html", "audit.json", "alternates.json", "notes.txt", "vocab.json"} & set(there)
    assert not [name for name, content in there.items() if SECRET in content or b"/home/" in content]
    assert b"base_model: EleutherAI/pythia-14m" in there["README.md"] and b"**Verdict: partly.**" in there["README.md"]
    assert (run_folder / "README.md").read_bytes() == there["README.md"]
    assert tiny_hub.TOKEN not in found.output


def test_a_second_push_removes_what_is_left_of_another_model_and_keeps_the_users_words(hub, run_folder):
    push_to_hub(run_folder, Push("forgetful"))
    there = hub.repos["me/forgetful"]  # of the token's own account
    there["model-00001-of-00002.safetensors"] = b"old"
    there["picture.png"] = b"mine"
    there["README.md"] = there["README.md"].replace(card.WRITTEN.encode(), b"My words.")
    push_to_hub(run_folder, Push("me/forgetful"))
    assert "model-00001-of-00002.safetensors" not in there and there["picture.png"] == b"mine"
    assert b"My words." in there["README.md"] and there["README.md"].count(b"## Unlearning") == 1


def test_a_model_that_expunge_did_not_push_is_not_replaced_unless_allowed(hub, run_folder):
    there = hub.repos["me/precious"] = {"model.safetensors": b"precious", "README.md": b"# Precious"}
    with pytest.raises(InputError, match="did not push"):
        push_to_hub(run_folder, Push("me/precious"))
    assert there["model.safetensors"] == b"precious" and not hub.commits
    push_to_hub(run_folder, Push("me/precious", overwrite=True))
    assert there["model.safetensors"] != b"precious" and b"# Precious" in there["README.md"]


@pytest.mark.parametrize(
    ("to", "sentence"),
    [
        (Push("a/b/c"), "write user/name"),
        (Push("me/x", token="hf_wrong"), "hf auth login"),
        (Push("someone/x"), "403"),
    ],
)
def test_what_the_hub_does_not_take_is_one_sentence(hub, run_folder, to, sentence):
    with pytest.raises(InputError, match=sentence) as error:
        push_to_hub(run_folder, to)
    assert "hf_wrong" not in str(error.value) and not hub.commits


def test_without_a_token_with_one_that_reads_or_without_a_network_nothing_is_sent(hub, run_folder, monkeypatch):
    from huggingface_hub import constants

    hub.role = "read"
    with pytest.raises(InputError, match="may only read"):
        push_to_hub(run_folder, Push("me/x"))
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    hub.requests.clear()
    with pytest.raises(InputError, match="no token for the Hub; say `hf auth login`"):
        push_to_hub(run_folder, Push("me/x"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="unset it"):
        push_to_hub(run_folder, Push("me/x", token=tiny_hub.TOKEN))
    assert hub.requests == [] and hub.repos == {}


def test_a_hub_that_cannot_be_reached_is_one_sentence(hub, run_folder, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(InputError, match="cannot be reached"):
        push_to_hub(run_folder, Push("me/x"))


def test_a_dry_run_sends_nothing(hub, run_folder):
    found = command("push", run_folder, "--to", "x", "--dry-run", "--json")
    assert json.loads(found.stdout)["repo_id"] == "me/x" and hub.repos == {}


def test_a_run_ends_with_a_push_where_its_settings_say_so(hub, workplace):
    words = [f"{k}={str(v).lower() if isinstance(v, bool) else v}" for k, v in RUN.items()]
    words += ["--push-to-hub", "--hub-model-id", "me/gone", "--hub-token", tiny_hub.TOKEN]
    found = command("run", "model=model", *words, "out=out")
    assert found.exit_code == 0 and f"pushed to {hub.address}/me/gone" in found.stdout, found.output
    assert hub.repos["me/gone"]["model.safetensors"] == (workplace / "out" / "model" / "model.safetensors").read_bytes()
    assert [
        p for p in (workplace / "out").rglob("*") if p.is_file() and tiny_hub.TOKEN.encode() in p.read_bytes()
    ] == []


def test_a_run_from_python_is_pushed_and_its_result_can_be(hub, workplace):
    done = unlearn("model", **RUN, push_to_hub=True, out="gone")
    assert "model.safetensors" in hub.repos["me/gone"]
    assert done.push_to_hub("me/other", private=True)["repo_id"] == "me/other" and hub.private["me/other"]


def test_a_run_whose_push_cannot_be_is_refused_before_the_model_is_loaded(hub, workplace, monkeypatch):
    monkeypatch.setattr("expunge.models.load", lambda *_, **__: pytest.fail("a model was loaded"))
    with pytest.raises(InputError, match="not accepted"):
        unlearn("model", **RUN, push_to_hub=True, hub_token="hf_wrong")
    with pytest.raises(InputError, match="no name on the Hub"):
        unlearn("model", **RUN, push_to_hub=True, adapter="lora")
    with pytest.raises(InputError, match="does nothing without push_to_hub"):
        unlearn("model", **RUN, hub_model_id="me/x")
    assert hub.repos == {} and not (workplace / "unlearned").exists()


def test_a_push_that_fails_in_the_end_leaves_the_run_and_says_the_command(hub, workplace):
    words = [f"{k}={str(v).lower() if isinstance(v, bool) else v}" for k, v in RUN.items()]
    found = command("run", "model=model", *words, "--push-to-hub", "--hub-model-id", "someone/gone", "out=out")
    assert found.exit_code == 1 and "expunge push out --to someone/gone" in found.output
    assert (workplace / "out" / "model" / "model.safetensors").exists() and (workplace / "out" / "README.md").exists()


def test_many_runs_are_not_pushed():
    with pytest.raises(InputError, match="is of one run"):
        room.refuse({"push_to_hub": True}, "the tuning")


def test_an_audit_of_an_earlier_model_is_left_out(hub, run_folder):
    file = run_folder / "run.json"
    file.write_text(
        json.dumps(json.loads(file.read_text()) | {"output": {"path": "model", "fingerprint": "sha256:new"}})
    )
    push_to_hub(run_folder, Push("me/x"))
    assert b"No audit was carried out" in hub.repos["me/x"]["README.md"]


def test_a_card_that_cannot_be_written_does_not_fail_the_run(workplace, monkeypatch, logged):
    monkeypatch.setattr("expunge.hub.card.write_card", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "disk full")))
    assert unlearn("model", **RUN, out="out").record["schema"] == 1
    assert "README.md was not written" in "\n".join(logged) and not (workplace / "out" / "README.md").exists()
