"""Notebooks as pages of the site: text, code, and the outputs that were saved in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def pages(folder: Path, blob: str) -> dict[str, str]:
    """Name of a page -> its Markdown, for each notebook in ``folder``; ``blob``: the address of the repository's files."""
    return {
        f.stem: page(json.loads(f.read_text()), f"{blob}/{folder.name}/{f.name}")
        for f in sorted(folder.glob("*.ipynb"))
    }


def page(notebook: dict[str, Any], address: str) -> str:
    """One notebook in Markdown; ``address`` is where it lies as a notebook."""
    parts = []
    for cell in notebook["cells"]:
        text = _joined(cell["source"]).strip()
        if cell["cell_type"] == "markdown":
            parts.append(text)
        elif cell["cell_type"] == "code" and text:
            parts += [f"```python\n{text}\n```", *filter(None, map(_output, cell["outputs"]))]
    return "\n\n".join([*parts, f"Made by `scripts/docs.py` from [the notebook]({address}).\n"])


def _output(output: dict[str, Any]) -> str:
    """What a cell printed or drew; of one that it shows in several forms the picture, else the text."""
    data = output.get("data", {})
    if "image/png" in data:
        return f"![output](data:image/png;base64,{_joined(data['image/png']).replace(chr(10), '')})"
    text = _joined(output.get("text", data.get("text/plain", ""))).rstrip()
    return f"```text\n{text}\n```" if text else ""


def _joined(text: str | list[str]) -> str:
    return text if isinstance(text, str) else "".join(text)
