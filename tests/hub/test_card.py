"""The model card: what the record and the audit say stands in it, and nothing that is private does."""

from __future__ import annotations

import json

import yaml

from expunge.hub import card


def read(folder):
    return json.loads((folder / "run.json").read_text()), json.loads((folder / "audit" / "audit.json").read_text())


def test_the_card_has_verdict_figures_method_settings_and_fingerprints(run_folder):
    record, audit = read(run_folder)
    text = card.model_card(record, audit, name="me/forgetful", base="EleutherAI/pythia-14m")
    assert "**Verdict: partly.** One attack brings half of it back." in text
    assert "| passed | the recall of the answers | 0.062 | 0.010 to 0.100 | ≤ 0.150 | 3 |" in text
    assert "| forget | probability of the answers, per token | 0.750 | 0.125 | 3 |" in text
    assert "| retain | probability of the answers, per token | 0.500 | 0.438 | 5 |" in text
    assert "`pdu_level` ([arXiv:2506.05314](https://arxiv.org/abs/2506.05314))" in text
    lines = (
        "| `learning_rate` | `1e-05` |",
        "| `seed` | `7` |",
        "| `method.step_size` | `5.0` |",
        "| `optimizer steps` | `2` |",
        "| model before | `sha256:aa` |",
        "| this model | `sha256:bb` |",
    )
    for line in lines:
        assert line in text, line
    assert 'AutoModelForCausalLM.from_pretrained("me/forgetful")' in text and "# forgetful" in text


def test_no_row_no_title_and_no_path_of_this_machine_is_in_it(run_folder):
    record, audit = read(run_folder)
    text = card.model_card(record, audit, name="me/forgetful")
    for word in ("Zebulon", "/home/", "someone", "Who?", "row 1", "sha256:cc"):
        assert word not in text, word
    assert "| `method.forget` | `mine.py:loss` |" in text and "- Whether other was kept." in text


def test_the_tags_are_those_that_people_search_for(run_folder):
    record, audit = read(run_folder)
    whole = yaml.safe_load(card.model_card(record, audit, base="a/b").split("---")[1])
    assert whole == {
        "base_model": "a/b",
        "base_model_relation": "finetune",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["unlearning", "machine-unlearning", "expunge", "pdu_level"],
    }
    adapter = yaml.safe_load(card.model_card(record, audit, base="a/b", adapter=True).split("---")[1])
    assert (adapter["base_model_relation"], adapter["library_name"]) == ("adapter", "peft") and "lora" in adapter[
        "tags"
    ]
    assert "base_model" not in yaml.safe_load(card.model_card(record, audit).split("---")[1])


def test_a_card_of_the_users_keeps_its_text_and_gets_the_section_and_the_tags(run_folder):
    record, audit = read(run_folder)
    own = "---\nlicense: mit\ntags: [mine]\n---\n# My model\n\nWhat I say.\n"
    once = card.model_card(record, audit, existing=own)
    assert "What I say." in once and once.count("## Unlearning") == 1
    facts = yaml.safe_load(once.split("---")[1])
    assert facts["license"] == "mit" and facts["tags"] == ["mine", *card.TAGS, "pdu_level"]
    changed = once.replace("What I say.", "What I say now.") + "\nAnd below.\n"
    again = card.model_card(record | {"seed": 8}, audit, existing=changed)
    assert again.count("## Unlearning") == 1 and "`8`" in again and "`7`" not in again
    assert "What I say now." in again and again.rstrip().endswith("And below.")
    assert yaml.safe_load(again.split("---")[1]) == facts


def test_a_readme_of_the_users_is_not_written_over(tmp_path, run_folder):
    record, audit = read(run_folder)
    assert card.write_card(tmp_path, record=record, audit=audit) == tmp_path / "README.md"
    assert (
        card.write_card(tmp_path, record=record | {"seed": 9}, audit=audit)
        and "`9`" in (tmp_path / "README.md").read_text()
    )
    (tmp_path / "README.md").write_text("mine")
    assert card.write_card(tmp_path, record=record) is None and (tmp_path / "README.md").read_text() == "mine"


def test_a_record_with_little_in_it_gives_a_card():
    text = card.model_card({"method": {"name": "npo"}, "failed": "it broke down"})
    assert "No audit was carried out" in text and "The run failed" in text and "Before and after" not in text
