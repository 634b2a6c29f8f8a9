"""``scripts/release.py``: what keeps a version from being released, by hand; wheel and sdist built, installed, used."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from expunge.models import locate

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def release():
    spec = importlib.util.spec_from_file_location("release_script", ROOT / "scripts" / "release.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def project(tmp_path):
    """A project whose version is agreed on."""
    (tmp_path / "src/expunge").mkdir(parents=True)
    for name, text in (
        ("pyproject.toml", '[project]\nversion = "1.2.0"\n'),
        ("src/expunge/__init__.py", '__version__ = "1.2.0"\n'),
        ("CHANGELOG.md", "# Changelog\n\n## 1.2.0 - 2026-11-28\n\n## 1.1.0 - 2026-01-01\n"),
        ("CITATION.cff", "cff-version: 1.2.0\nversion: 1.2.0\n"),
    ):
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "text", "sentence"),
    [
        ("src/expunge/__init__.py", '__version__ = "1.1.0"\n', "__init__.py has the version 1.1.0"),
        ("CHANGELOG.md", "## 1.2.0 - unreleased\n", "write the day"),
        ("CHANGELOG.md", "## 1.1.0 - 2026-01-01\n", "begins with 1.1.0"),
        ("CHANGELOG.md", "nothing\n", "begins with no version"),
        ("CITATION.cff", "version: 1.1.0\n", "CITATION.cff has the version 1.1.0"),
    ],
)
def test_a_version_that_is_not_agreed_on_is_named(release, project, file, text, sentence):
    assert release.disagreements(project) == []
    (project / file).write_text(text)
    (said,) = release.disagreements(project)
    assert sentence in said


def test_this_project_agrees_but_for_the_day(release):
    assert [line for line in release.disagreements(ROOT) if "write the day" not in line] == []


def test_changes_and_a_tag_elsewhere_keep_it_from_being_released(release, project):
    def git(*words):
        own = ["git", "-C", str(project), "-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run([*own, *words], check=True, capture_output=True)

    git("init", "-q")
    assert release.tags(project) == ["there are changes that are not committed"]
    git("add", "-A")
    git("commit", "-qm", "one")
    git("tag", "v1.2.0")
    assert release.tags(project) == []
    git("commit", "-qm", "two", "--allow-empty")
    (said,) = release.tags(project)
    assert "the tag v1.2.0 is on another commit" in said


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_what_is_built_installs_in_an_empty_environment_and_its_demo_runs(release, tmp_path, kind):
    """Nothing of this checkout is on the path: the dependencies are this environment's, expunge is the installed one."""
    sdist, wheel = release.build(ROOT, tmp_path / "dist")
    assert release.faults(sdist, wheel) == []
    home = tmp_path / "venv"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "COVERAGE_PROCESS_START")}
    of_this = {**clean, "PYTHONPATH": sysconfig.get_paths()["purelib"]}
    pip = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    what = {"wheel": wheel, "sdist": sdist}[kind]
    subprocess.run([*pip, what], check=True, env=clean if kind == "wheel" else of_this, timeout=300)

    def expunge(*words):
        return subprocess.run(
            [home / "bin" / "expunge", *words], env=of_this, cwd=tmp_path, capture_output=True, text=True, timeout=3600
        )

    code = "import expunge; print(expunge.__file__)"
    found = subprocess.run([python, "-c", code], env=of_this, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout.startswith(str(home)), found.stdout
    assert expunge("--version").stdout.strip() == f"expunge {release.version_of(ROOT)}"
    assert "pdu_level" in expunge("methods").stdout
    if not locate.wheel_file():
        return
    planned = expunge("demo", "--dry-run", "--json", "--out", "demo")
    said = json.loads(planned.stdout)
    assert said["data"]["forget"] == 16 and said["model"].startswith(str(home)), planned.stderr  # the wheel's own rows
    if kind == "wheel":
        done = expunge("demo", "--limit", "2", "--out", "demo")
        assert done.returncode == 0, done.stderr
        assert len(list((tmp_path / "demo").glob("*/report.html"))) == 1


def test_a_wheel_that_lacks_data_or_is_too_large_is_named(release, tmp_path, monkeypatch):
    sdist, wheel = tmp_path / "expunge-1.tar.gz", tmp_path / "expunge-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as z:
        for name in release.NEEDED[1:]:
            z.writestr(name, "")
    with tarfile.open(sdist, "w:gz") as t:
        for name in release.NEEDED:
            (tmp_path / "x").write_text("")
            t.add(tmp_path / "x", f"expunge-1/src/{name}")
    assert release.faults(sdist, wheel) == [f"{wheel.name} lacks expunge/py.typed"]
    monkeypatch.setitem(release.LARGEST, ".whl", 10)
    with zipfile.ZipFile(wheel, "w") as z:
        for name in release.NEEDED:
            z.writestr(name, "")
    (said,) = release.faults(sdist, wheel)
    assert "the limit is" in said
