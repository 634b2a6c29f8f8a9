"""``make release``: version, changelog, citation and tag agree, and what is built is whole and small.  Uploads nothing.

python scripts/release.py [OUT]        # checks, then wheel and sdist in OUT (dist)
python scripts/release.py --check      # checks alone
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
LARGEST = {".whl": 6 << 20, ".gz": 6 << 20}  # bytes; two demo adapters are most of it
PARTS = ("src", "pyproject.toml", "README.md", "LICENSE")  # what a build reads
NEEDED = (  # files of the wheel without which something breaks
    "expunge/py.typed",
    "expunge/demo/forget.jsonl",
    "expunge/demo/adapters/target/adapter_model.safetensors",
    "expunge/report/base.html.j2",
)
HEADING = re.compile(r"^## (?P<version>\S+) - (?P<when>\S+)", re.MULTILINE)
BUILD = "import setuptools.build_meta as b, sys; getattr(b, sys.argv[1])(sys.argv[2])"  # one hook a process, as PEP 517 says


def version_of(root: Path) -> str:
    """The version in ``pyproject.toml``."""
    return str(tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])


def disagreements(root: Path) -> list[str]:
    """What does not agree with the version in ``pyproject.toml``, a sentence each."""
    version, out = version_of(root), []
    said = re.search(r'__version__ = "([^"]+)"', (root / "src/expunge/__init__.py").read_text(encoding="utf-8"))
    if said and said[1] != version:
        out.append(f"src/expunge/__init__.py has the version {said[1]}, pyproject.toml {version}")
    first = HEADING.search((root / "CHANGELOG.md").read_text(encoding="utf-8"))
    if first is None or first["version"] != version:
        out.append(
            f"CHANGELOG.md begins with {first['version'] if first else 'no version'}, pyproject.toml has {version}"
        )
    elif not re.fullmatch(r"\d{4}-\d{2}-\d{2}", first["when"]):
        out.append(f"CHANGELOG.md says {first['when']} of {version}; write the day, such as 2026-11-28")
    citation = re.search(r"^version: *\"?([^\"\n]+)", (root / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    if citation and citation[1].strip() != version:
        out.append(f"CITATION.cff has the version {citation[1].strip()}, pyproject.toml {version}")
    return out


def tags(root: Path) -> list[str]:
    """What of git keeps the version from being released: changes that are not committed, a tag on another commit."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=False)
        return done.stdout.strip()

    tag, out = f"v{version_of(root)}", []
    if git("status", "--porcelain"):
        out.append("there are changes that are not committed")
    there = git("rev-list", "-n", "1", tag)
    if there and there != git("rev-parse", "HEAD"):
        out.append(f"the tag {tag} is on another commit ({there[:12]}); raise the version")
    return out


def build(root: Path, out: Path) -> tuple[Path, Path]:
    """The sdist and the wheel in ``out``, made of a copy of what a build reads; needs setuptools and no network."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for part in PARTS:
            source, target = root / part, Path(folder) / part
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
            else:
                shutil.copyfile(source, target)
        for hook in ("build_sdist", "build_wheel"):
            words = [sys.executable, "-c", BUILD, hook, str(out.absolute())]
            done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"release: {hook} failed\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    version = version_of(root)
    return out / f"expunge-{version}.tar.gz", out / f"expunge-{version}-py3-none-any.whl"


def faults(sdist: Path, wheel: Path) -> list[str]:
    """What is wrong with what was built: too large, or a file missing."""
    out = []
    for file in (sdist, wheel):
        if (size := file.stat().st_size) > LARGEST[file.suffix]:
            out.append(f"{file.name} has {size / 1e6:.1f} MB, the limit is {LARGEST[file.suffix] / 1e6:.1f} MB")
    with zipfile.ZipFile(wheel) as opened:
        names = set(opened.namelist())
    out += [f"{wheel.name} lacks {name}" for name in NEEDED if name not in names]
    with tarfile.open(sdist) as archive:
        within = {name.partition("/")[2] for name in archive.getnames()}
    return out + [f"{sdist.name} lacks src/{name}" for name in NEEDED if f"src/{name}" not in within]


def main(words: list[str]) -> int:
    """Print what is wrong, and what was built; the exit code."""
    found = disagreements(ROOT) + tags(ROOT)
    if "--check" not in words and not found:
        sdist, wheel = build(ROOT, Path(words[0] if words else "dist"))
        found = faults(sdist, wheel)
        for file in (sdist, wheel):
            print(f"{file}: {file.stat().st_size / 1e6:.2f} MB")
    for line in found:
        print(f"release: {line}", file=sys.stderr)
    if not found and "--check" not in words:
        print(f"next: git tag v{version_of(ROOT)} && git push --tags && twine upload {' '.join(words) or 'dist'}/*")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
