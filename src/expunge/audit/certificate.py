"""A certificate: an Ed25519 signature over what an audit found, and the SHA-256 of all that it rests on.

It says what was measured, by which thresholds, and until when that is held to be so; it never says that data is erased.
``verify`` recomputes every hash that it can reach.  The signature is over the statement as canonical JSON: sorted keys,
no blanks.  Needs ``cryptography`` (``expunge[audit]``); RFC 8032.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from expunge import __version__, files
from expunge.audit import describe
from expunge.errors import InputError
from expunge.files import PRIVATE, PathLike, sha256_file, sha256_folder
from expunge.record import complete
from expunge.record_types import AuditRecord

SCHEMA = 1
KIND = "audit certificate"
DAYS = 365
STATEMENT = (
    "This certifies what an audit measured, on the rows and models named here, by the thresholds named here. Unlearning is "
    "approximate: it does not certify that no trace is left, nor that other copies are gone."
)
Status = Literal["same", "changed", "not reached"]


@dataclass(frozen=True)
class Line:
    """One thing that was recomputed, or could not be reached."""

    what: str
    status: Status
    detail: str = ""


@dataclass(frozen=True)
class Verified:
    """What ``verify`` found: ``good`` where the signature holds, nothing has changed and the certificate is in force."""

    lines: list[Line]
    problems: list[str]
    statement: dict[str, Any]

    @property
    def good(self) -> bool:
        return not self.problems


# -- keys -----------------------------------------------------------------------------------------------------------------
def _ed25519() -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise InputError("certificates need the package cryptography: pip install 'expunge[audit]'") from None
    return ed25519


def private_key(file: Path) -> tuple[Any, bool]:
    """The Ed25519 key in ``file`` (PEM, PKCS#8), and whether it was made here because there was none (mode 600)."""
    from cryptography.hazmat.primitives import serialization

    if not file.exists():
        key = _ed25519().Ed25519PrivateKey.generate()
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        files.replace_text(file, pem.decode("ascii"), mode=PRIVATE)
        return key, True
    try:
        key = serialization.load_pem_private_key(file.read_bytes(), password=None)
    except (ValueError, TypeError, OSError) as error:
        raise InputError(f"{file} is no private key in PEM without a password ({_short(error)})") from None
    if not isinstance(key, _ed25519().Ed25519PrivateKey):
        raise InputError(
            f"{file} is a key of another kind; give an Ed25519 key, or a name that is not there to make one"
        )
    return key, False


def _public(file: Path) -> bytes:
    """The 32 bytes of the public key in ``file``, PEM, or of the private one there."""
    from cryptography.hazmat.primitives import serialization

    try:
        content = file.read_bytes()
        private = b"PRIVATE KEY" in content
        key = (serialization.load_pem_private_key(content, password=None).public_key() if private
               else serialization.load_pem_public_key(content))  # fmt: skip
    except (ValueError, TypeError, OSError) as error:
        raise InputError(f"{file} is no key in PEM ({_short(error)})") from None
    if not isinstance(key, _ed25519().Ed25519PublicKey):
        raise InputError(f"{file} is a key of another kind; give an Ed25519 key")
    return _raw(key)


def _raw(key: Any) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return bytes(key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw))


def fingerprint(public: bytes) -> str:
    """``sha256:<hex>`` of a public key's 32 bytes."""
    return "sha256:" + hashlib.sha256(public).hexdigest()


# -- issue ----------------------------------------------------------------------------------------------------------------
def certify(
    audit: PathLike, key_file: PathLike, *, days: int = DAYS, out: PathLike | None = None
) -> tuple[Path, dict[str, Any], bool]:
    """Write ``certificate.json`` beside an audit's record; returns the file, its content, and whether a key was made.

    Raises InputError for an audit that is none or whose files are not those that its record names.
    """
    if days < 1:
        raise InputError(f"a certificate is valid for at least a day, not {days}")
    _ed25519()
    place = files.expanded(audit)
    folder = place if place.is_dir() else place.parent
    log = describe.read(folder if place.is_dir() else place)
    for name, digest in (log.get("evidence") or {}).items():
        if not (folder / name).is_file() or sha256_file(folder / name) != digest:
            raise InputError(f"{folder / name} is not what the audit's record names; audit again before certifying")
    target = files.check_file(out) if out is not None else folder / describe.CERTIFICATE
    key, made = private_key(files.expanded(key_file))
    public = _raw(key.public_key())
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    statement = statement_of(log, folder) | {
        "issued": now.isoformat(),
        "valid_until": (now + datetime.timedelta(days=days)).isoformat(),
        "key": fingerprint(public),
    }
    content = {
        "schema": SCHEMA,
        "kind": KIND,
        "statement": statement,
        "algorithm": "Ed25519",
        "public_key": base64.b64encode(public).decode("ascii"),
        "signature": base64.b64encode(key.sign(canonical(statement))).decode("ascii"),
    }
    files.write_json(target, content)
    return target, content, made


def statement_of(log: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What is signed: scope, verdict, method, thresholds, and the hashes of all that it rests on."""
    said = complete(AuditRecord, log)
    verdict = said["verdict"]
    names = [describe.FILE, *describe.PAGES, *said["evidence"]]
    named = bool(said["settings"].get("model_name"))  # then sources are names, and no path is written

    def place(source: str | None) -> str | None:
        return None if named else _place(source)

    models = {
        role: {k: m.get(k) for k in ("source", "kind", "fingerprint", "files")} | {"place": place(m["source"])}
        for role, m in said["models"].items()
    }
    return {
        "statement": STATEMENT,
        "expunge": __version__,
        "request": said["request"],
        "operator": said["operator"],
        "audited": said["created"],
        "scope": {
            "data": {
                n: {k: d.get(k) for k in ("source", "rows", "measured", "fingerprint", "file")}
                | {"place": place(d["source"])}
                for n, d in said["data"].items()
            },
            "models": models,
        },
        "verdict": verdict["word"],
        "because": verdict["sentence"],
        "not_concluded": verdict["not_concluded"],
        "method": {
            "unlearning": {k: (said.get("run") or {}).get(k) for k in ("method", "parameters", "record")},
            "figures": sorted({f["name"] for f in verdict["findings"] if f["name"]}),
            "attacks": [a["name"] for a in said["attacks"] if not a["problem"]],
        },
        "thresholds": said["policy"],
        "files": {n: sha256_file(folder / n) for n in names if (folder / n).is_file()},
    }


def _place(source: str | None) -> str | None:
    """Where a file or folder lies on this disk, in full; None where it is none."""
    path = Path(os.path.abspath(os.path.expanduser(source))) if source else None
    return str(path) if path is not None and path.exists() else None


def canonical(statement: Mapping[str, Any]) -> bytes:
    """The bytes that are signed."""
    return json.dumps(files.strict(statement), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


# -- verify ---------------------------------------------------------------------------------------------------------------
def verify(path: PathLike, *, key_file: PathLike | None = None, now: datetime.datetime | None = None) -> Verified:
    """Check a certificate (the file, or the folder that holds it): signature, validity, and every hash that can be reached.

    ``key_file``: the public key (PEM) that it must be signed with; without one the key in the certificate is taken, whose
    fingerprint has to be compared with the signer's.  Raises InputError for what is no certificate.
    """
    ed25519 = _ed25519()
    from cryptography.exceptions import InvalidSignature

    place = files.expanded(path)
    file = place / describe.CERTIFICATE if place.is_dir() else place
    content = files.read_json(
        file, description="certificate", remedy="give certificate.json, or the folder of an audit"
    )
    if content.get("kind") != KIND or content.get("schema") != SCHEMA:
        raise InputError(
            f"{file} is no certificate of schema {SCHEMA}; give certificate.json, or the folder of an audit"
        )
    statement = content.get("statement")
    try:
        public, signature = (base64.b64decode(str(content[k]), validate=True) for k in ("public_key", "signature"))
        key = ed25519.Ed25519PublicKey.from_public_bytes(public)
    except (KeyError, ValueError) as error:
        raise InputError(f"{file}: key or signature cannot be read ({_short(error)})") from None
    if not isinstance(statement, dict):
        raise InputError(f"{file} holds no statement")
    problems: list[str] = []
    try:
        key.verify(signature, canonical(statement))
    except InvalidSignature:
        problems.append("the signature does not fit: the certificate was changed, or signed with another key")
    if statement.get("key") != fingerprint(public):
        problems.append("the key in the certificate is not the one that its statement names")
    if key_file is not None and _public(files.expanded(key_file)) != public:
        problems.append(f"it was not signed with the key in {key_file}")
    problems += _in_force(statement, now or datetime.datetime.now(datetime.UTC))
    lines = _hashes(statement, file.parent)
    problems += [f"{line.what} has changed" for line in lines if line.status == "changed"]
    problems += [
        f"{line.what} is missing" for line in lines if line.status == "not reached" and line.detail == "beside"
    ]
    return Verified(lines, problems, statement)


def _in_force(statement: Mapping[str, Any], now: datetime.datetime) -> list[str]:
    try:
        issued, until = (datetime.datetime.fromisoformat(str(statement[k])) for k in ("issued", "valid_until"))
    except (KeyError, ValueError):
        return ["it does not say how long it is valid"]
    if now > until:
        return [f"it was valid until {until:%Y-%m-%d}"]
    return [f"it is valid from {issued:%Y-%m-%d %H:%M} UTC on"] if now < issued else []


def _hashes(statement: Mapping[str, Any], folder: Path) -> list[Line]:
    """A line for each hash of the statement."""
    lines = [_line(name, folder / name, digest, "beside") for name, digest in (statement.get("files") or {}).items()]
    scope = statement.get("scope") or {}
    for role, m in (scope.get("models") or {}).items():
        lines.append(_line(f"the {role} model {m.get('source')}", _path(m.get("place")), m.get("files"), "elsewhere"))
    for name, d in (scope.get("data") or {}).items():
        lines.append(_line(f"the {name} set {d.get('source')}", _path(d.get("place")), d.get("file"), "elsewhere"))
    return lines


def _line(what: str, place: Path | None, digest: Any, detail: str) -> Line:
    if place is None or not place.exists() or digest is None:
        return Line(what, "not reached", detail)
    try:
        found = sha256_folder(place) if place.is_dir() else sha256_file(place)
    except (OSError, InputError):
        return Line(what, "not reached" if detail == "elsewhere" else "changed", detail)
    return Line(what, "same" if found == digest else "changed", detail)


def _path(place: Any) -> Path | None:
    return Path(place) if isinstance(place, str) else None


def _short(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:80]
