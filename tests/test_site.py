"""What the site is made of: formulas as MathML, pages made of the models, and the build itself."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from xml.etree import ElementTree

import pytest
from scripts import notebooks, papers, reference
from snippets import PAGES, ROOT

FORMULA = re.compile(r"\$\$(.+?)\$\$|(?<![\\$\w])\$(?! )([^$\n`]+?)(?<! )\$(?![\w$])", re.S)


def formulas():
    """Every formula of every page, once."""
    found: dict[str, str] = {}
    for page in PAGES:
        text = re.sub(r"^```.*?^```$|`[^`\n]*`", "", page.read_text(), flags=re.M | re.S)
        found |= {m[1] or m[2]: page.name for m in FORMULA.finditer(text)}
    return found


def test_every_formula_becomes_mathml():
    pytest.importorskip("latex2mathml")
    from scripts.site.mathml import mathml

    found = formulas()
    assert len(found) > 60
    for latex, page in found.items():
        made = mathml(latex, "inline")
        left = [e.text for e in ElementTree.fromstring(made).iter() if "\\" in (e.text or "")]
        assert not left, f"{page}: {left} of {latex}"


def test_brackets_take_in_their_exponent():
    pytest.importorskip("latex2mathml")
    from scripts.site.mathml import mathml

    made = ElementTree.fromstring(mathml(r"\Bigl(\frac{a}{b}\Bigr)^2", "inline"))
    (power,) = (e for e in made.iter() if e.tag.endswith("msup"))
    assert [e.tag.rpartition("}")[2] for e in power] == ["mrow", "mn"] and "".join(power.itertext()) == "(ab)2"


def test_the_page_of_commands_has_what_help_has():
    from typer.testing import CliRunner

    from expunge.cli import app

    text = reference.commands_page()
    for command in ("run", "audit", "fingerprint"):
        section = text.split(f"\n## expunge {command}\n")[1].split("\n## ")[0]
        said = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).output
        wanted = set(re.findall(r"^\s+(?:-\w, )?(--[a-z-]+)", said, re.M)) - {"--help"}
        cells = " ".join(re.findall(r"^\| (`-[^|]*) \|", section, re.M))
        listed = set(re.findall("`(--[a-z-]+)`", cells))
        assert len(wanted) >= 3 and wanted == {o for o in listed if not o.startswith("--no-") or o in wanted}
    for command in ("guard serve", "certify", "verify"):
        assert f"\n## expunge {command}\n" in text


def test_the_page_of_recipes_has_every_key_with_type_and_bounds():
    from expunge.unlearning.settings import Recipe

    section = reference.recipes_page().split("\n## expunge run\n")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]*) \|", section, re.M))
    assert list(rows) == list(Recipe.model_fields)
    assert rows["keep"].strip() == "number, > 0, ≤ 1" and rows["adapter"].strip() == "`lora`"
    assert "| `out` | text | `unlearned` |" in section and "| `model` | text | *required* |" in section


def test_the_page_of_records_links_to_what_it_holds():
    text = reference.records_page()
    anchors = {re.sub("[^a-z0-9_-]", "", title.lower()) for title in re.findall(r"^## (.+)$", text, re.M)}
    linked = set(re.findall(r"\]\(#([^)]+)\)", text))
    assert linked and linked <= anchors
    assert "| `steps` | list of {text: any} | yes |" in text and "| `parent` | [ParentInfo](#parentinfo) | no |" in text


def test_the_index_of_papers_has_every_method_and_its_defaults():
    from expunge.method import METHODS, entries

    text = papers.table()
    assert all(f"methods.md#{name})" in text for name in entries()) and METHODS
    assert "**[`pdu`](methods.md#pdu)**: `budget = None`, `tolerance = 0.5`, `step_size = 5.0`" in text
    assert set(papers.READ) <= set(entries())


def test_a_notebook_becomes_a_page(tmp_path):
    cells = [
        {"cell_type": "markdown", "source": ["# First\n", "Text."]},
        {"cell_type": "code", "source": "print(1)", "outputs": [{"output_type": "stream", "text": ["1\n"]}]},
        {"cell_type": "code", "source": "x", "outputs": [{"data": {"text/plain": "<Figure>", "image/png": "aGk=\n"}}]},
        {"cell_type": "code", "source": "", "outputs": []},
    ]
    (tmp_path / "a.ipynb").write_text(json.dumps({"cells": cells}))
    (text,) = notebooks.pages(tmp_path, "https://host/blob").values()
    shown = "```python\nprint(1)\n```\n\n```text\n1\n```\n\n```python\nx\n```\n\n![output](data:image/png;base64,aGk=)"
    assert text.startswith(f"# First\nText.\n\n{shown}\n\nMade by")
    assert text.endswith(f"(https://host/blob/{tmp_path.name}/a.ipynb).\n")


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    """Internal links and anchors are checked by ``--strict``; no page asks another host for anything."""
    pytest.importorskip("zensical")
    for name in ("docs", "scripts"):
        shutil.copytree(ROOT / name, tmp_path / name)
    settings = (ROOT / "mkdocs.yml").read_text().replace("[src]", f"[{ROOT / 'src'}]")
    (tmp_path / "mkdocs.yml").write_text(settings)
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(tmp_path)])}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    made = tmp_path / "site"
    assert done.returncode == 0 and "No issues found" in done.stdout + done.stderr, done.stdout + done.stderr
    for page in made.rglob("*.html"):
        text = page.read_text()
        assert not re.search(r"<(?:script|img|link rel=\"stylesheet\")[^>]*(?:src|href)=\"https?:", text), page
        assert 'class="arithmatex"' not in text, page
    assert "<math" in (made / "methods.html").read_text()
