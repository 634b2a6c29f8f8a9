"""The push: what can be refused is refused before a model is loaded, one commit holds weights and card."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expunge import files, processes, record
from expunge.errors import InputError, RunFailed
from expunge.hub import card, weights

logger = logging.getLogger(__name__)
LOGIN = "say `hf auth login`, or set HF_TOKEN, or give --hub-token"


@dataclass(frozen=True)
class Push:
    """Where a model goes: ``repo_id``: ``user/name``, or a name under your own account; ``private`` None: as that has it.

    ``overwrite``: a model there that expunge did not push may be replaced (its history stays on the Hub).
    """

    repo_id: str
    private: bool | None = None
    token: str | None = None
    revision: str | None = None
    base_model: str | None = None
    message: str | None = None
    overwrite: bool = False


def of_run(settings: Any, folder: Path) -> Push | None:
    """Where a run's settings say that its model goes; None where they do not say so."""
    if not settings.push_to_hub:
        return None
    name = settings.hub_model_id or folder.absolute().name
    return Push(name, settings.hub_private_repo, settings.hub_token, settings.hub_revision)


def check_run(settings: Any, folder: Path) -> None:
    """:func:`check` of a run that is to be pushed in the end; an adapter's base must have a name on the Hub."""
    to = of_run(settings, folder)
    if to is None or not processes.is_main():
        return
    from expunge.models.locate import resolve

    if (
        settings.adapter
        and not settings.merge
        and weights.base_name(resolve(settings.model).base or settings.model) is None
    ):
        raise InputError(
            f"the adapter's base {settings.model} has no name on the Hub, so nobody could load what is pushed; say merge "
            "(--merge), or push afterwards with expunge push OUT --to user/name --base-model user/name"
        )
    check(to)


def after(settings: Any, folder: Path) -> dict[str, Any] | None:
    """Write a run's model card, and push the model where its settings say so; returns what :func:`push_to_hub` does.

    Raises RunFailed where the push fails: the run is whole.
    """
    to = of_run(settings, folder)
    if not processes.is_main():
        return None
    try:
        write_readme(folder)
    except (InputError, OSError) as error:  # the run is whole without it
        logger.warning("the model card README.md was not written: %s", _short(error))
    if to is None:
        return None
    try:
        return push_to_hub(folder, to)
    except InputError as error:
        raise RunFailed(
            f"the run is whole, but was not pushed: {error}; then: expunge push {folder} --to {to.repo_id}",
            record=record.read(folder),
        ) from None


def write_readme(run: files.PathLike) -> Path | None:
    """Write the model card of a run as README.md into its folder, unless the user has one there."""
    folder, model, said, audit = read_run(run)
    base = weights.base_of(model, said)
    name = f"{folder.absolute().name}/{model.name}"
    return card.write_card(folder, record=said, audit=audit, name=name, base=base, adapter=weights.is_adapter(model))


def refuse(values: Mapping[str, Any], where: str) -> None:
    """Raise InputError where settings of many runs say that models are to be pushed."""
    if str(values.get("push_to_hub", False)).lower() not in ("false", "none", "0", "no", "off"):
        raise InputError(
            f"{where}: push_to_hub is of one run; push the model that you choose with expunge push RUN --to user/name"
        )


def check(to: Push) -> str:
    """The full name of the repository, ``user/name``; nothing is written.

    Raises InputError for a name that is none, without a token or with one that may not write, without a network, and for a
    repository that holds a model which expunge did not push.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(to.repo_id)
    except HFValidationError as error:
        raise InputError(
            f"{to.repo_id!r} is no name of a repository on the Hub: {_short(error)}; write user/name"
        ) from None
    if to.repo_id.count("/") == 0 and to.repo_id.startswith((".", "-")):
        raise InputError(f"{to.repo_id!r} is no name of a repository on the Hub; write user/name")
    if constants.HF_HUB_OFFLINE:
        raise InputError("nothing can be pushed while HF_HUB_OFFLINE is set; unset it")
    token = token_of(to)
    with _speaking("the token was not accepted"):
        user = _api(token).whoami()
    role = ((user.get("auth") or {}).get("accessToken") or {}).get("role")
    if role == "read":
        raise InputError("the token may only read; make one that may write at https://huggingface.co/settings/tokens")
    repo_id = to.repo_id if "/" in to.repo_id else f"{user['name']}/{to.repo_id}"
    if not to.overwrite:
        _check_ours(repo_id, token, to.revision)
    return repo_id


def token_of(to: Push) -> str:
    """The token, given or of this machine; raises InputError where there is none."""
    from huggingface_hub import get_token

    found = to.token or get_token()
    if not found:
        raise InputError(f"there is no token for the Hub; {LOGIN}")
    return found


def plan(run: files.PathLike, to: Push) -> dict[str, Any]:
    """What :func:`push_to_hub` would do; raises InputError as it does."""
    folder, model, said, _ = read_run(run)
    sent, left_out, base = _chosen(model, said, to)
    return {
        "run": str(folder),
        "repo_id": check(to),
        "base_model": base,
        "files": [*sent, "README.md"],
        "left out": left_out,
    }


def push_to_hub(run: files.PathLike, to: Push) -> dict[str, Any]:
    """Push the model in a run's folder with its card, in one commit; returns ``repo_id``, ``url``, ``files``, ``left_out``.

    Only files whose names are allowed go (:mod:`expunge.hub.weights`); a README.md of the user's, in the run's folder or
    on the Hub, goes with the unlearning section put in.  Raises InputError as :func:`check` does.
    """
    folder, model, said, audit = read_run(run)
    sent, left_out, base = _chosen(model, said, to)
    repo_id = check(to)
    api = _api(token_of(to))
    facts: dict[str, Any] = {"base": base, "adapter": weights.is_adapter(model), "name": repo_id}
    there, on_hub = _there(api, repo_id, to.revision)
    local = card.own_card(folder / "README.md")
    own = local if local is not None or card.WRITTEN in (on_hub or "") else on_hub
    text = card.model_card(said, audit, existing=own, **facts)
    with _speaking(f"{repo_id} cannot be written"):
        url = str(api.create_repo(repo_id, private=to.private, exist_ok=True))
        if to.revision:
            api.create_branch(repo_id, branch=to.revision, exist_ok=True)
        changes = _operations(sent, text, there)
        api.create_commit(repo_id, changes, commit_message=_message(to, said), revision=to.revision)
    card.write_card(folder, record=said, audit=audit, **facts)
    return {"repo_id": repo_id, "url": url, "files": sorted([*sent, "README.md"]), "left_out": left_out}


def _chosen(model: Path, said: Mapping[str, Any], to: Push) -> tuple[dict[str, bytes | Path], list[str], str | None]:
    """File -> what goes to the Hub of it, the names that do not go, and the Hub's name of the model before."""
    going, left_out = weights.chosen(model)
    base = weights.base_of(model, said, to.base_model)
    return {file.name: weights.content(file, base) for file in going}, left_out, base


def read_run(run: files.PathLike) -> tuple[Path, Path, dict[str, Any], dict[str, Any] | None]:
    """A run's folder, its model's folder, its record, and that of its audit or None."""
    folder = files.expanded(run)
    if not (folder / record.FILE).is_file() and (folder.parent / record.FILE).is_file():
        folder = folder.parent  # the model's folder was given
    said = record.read(folder)
    model = folder / str((said.get("output") or {}).get("path") or "model")
    if not model.is_dir():
        raise InputError(f"{folder} holds no model to push: {model} is not there")
    if said.get("failed"):
        raise InputError(f"the run in {folder} failed; its model is not pushed")
    return folder, model, said, _audit_of(folder, said)


def _audit_of(folder: Path, said: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record of the audit in a run's folder; None where there is none, or one of an earlier model."""
    file = folder / "audit" / "audit.json"
    if not file.is_file():
        return None
    audit = files.read_json(file, description="record of an audit", remedy="audit again")
    of_run = (audit.get("run") or {}).get("record")
    model = ((audit.get("models") or {}).get("unlearned") or {}).get("fingerprint")
    ours = model is not None and model == (said.get("output") or {}).get("fingerprint")
    return audit if ours or of_run == files.sha256_file(folder / record.FILE) else None


def _operations(sent: Mapping[str, bytes | Path], text: str, there: Sequence[str]) -> list[Any]:
    """The files and the card, and the removal of what is left of another model (its history stays)."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    adds = [(name, what if isinstance(what, bytes) else os.fspath(what)) for name, what in sent.items()]
    left = [name for name in there if weights.allowed(name) and name not in sent]
    return [
        *(CommitOperationAdd(name, what) for name, what in [*adds, ("README.md", text.encode())]),
        *map(CommitOperationDelete, left),
    ]


def _message(to: Push, said: Mapping[str, Any]) -> str:
    return to.message or f"Upload model unlearned with expunge, {(said.get('method') or {}).get('name')}"


def _api(token: str) -> Any:
    from huggingface_hub import HfApi

    return HfApi(token=token, library_name="expunge")


def _check_ours(repo_id: str, token: str, revision: str | None) -> None:
    """Raise InputError where the repository holds a model that expunge did not push."""
    there, text = _there(_api(token), repo_id, revision)
    if any(map(weights.allowed, there)) and card.BEGIN not in (text or ""):
        raise InputError(
            f"{repo_id} holds a model that expunge did not push; name another repository, or allow it with --overwrite"
        )


def _there(api: Any, repo_id: str, revision: str | None) -> tuple[list[str], str | None]:
    """The files in the repository, and the text of its card or None; nothing where there is no repository yet."""
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status  # type: ignore[attr-defined]

    with _speaking(f"{repo_id} cannot be read"):
        try:
            there = api.list_repo_files(repo_id, revision=revision)
        except (RepositoryNotFoundError, RevisionNotFoundError):
            return [], None
        if "README.md" not in there:
            return there, None
        address = f"{api.endpoint}/{repo_id}/resolve/{revision or 'main'}/README.md"
        answer = get_session().get(address, headers=build_hf_headers(token=api.token), follow_redirects=True)
        hf_raise_for_status(answer)
        return there, str(answer.text)


@contextmanager
def _speaking(problem: str) -> Iterator[None]:
    """What the Hub refuses, and a Hub that cannot be reached, as a sentence."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        yield
    except InputError:
        raise
    except HfHubHTTPError as error:
        code = error.response.status_code if error.response is not None else None
        remedy = LOGIN if code == 401 else "the token needs the right to write there" if code == 403 else "try again"
        raise InputError(f"{problem} (the Hub answers {code}: {_short(error)}); {remedy}") from None
    except OfflineModeIsEnabled:
        raise InputError("nothing can be pushed while HF_HUB_OFFLINE is set; unset it") from None
    except Exception as error:
        if type(error).__module__.split(".")[0] not in ("httpx", "httpx2", "httpcore", "requests"):
            raise
        raise InputError(f"the Hub cannot be reached ({_short(error)}); try again") from None


def _short(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")[:200]
