"""Pages made of the models: every command with its options, every key of a recipe, every key of a record."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Iterator
from typing import (
    Annotated,
    Any,
    ForwardRef,
    Literal,
    NotRequired,
    Required,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import annotated_types
import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from expunge import record_types
from expunge.audit.policy import Policy
from expunge.audit.settings import Audit
from expunge.bench.settings import Bench
from expunge.cli import app
from expunge.cli.formulas import for_markdown
from expunge.cli.options import _plain
from expunge.compare.settings import Compare, Entry
from expunge.release.settings import Release
from expunge.reveal.settings import Reveal
from expunge.tune.settings import Tune
from expunge.unlearning.settings import TABLES, Adapter, Recipe

MADE = "Made by `scripts/docs.py` from {source}, so it says what the program does.\n"


# -- commands -------------------------------------------------------------------------------------------------------------
def commands_page() -> str:
    """docs/reference/commands.md: what ``--help`` says of every command."""
    head = "# Commands\n\n" + MADE.format(source="the command line itself")
    intro = (
        "\n`expunge COMMAND --help` prints the same.  `key=value` settings stand anywhere after the command, a recipe\n"
        "before them; an option of the command line wins over both.\n"
    )
    group = typer.main.get_command(app)
    return head + intro + "".join(_command(group, "expunge", name) for name in group.commands)  # type: ignore[attr-defined]


def _command(group: Any, path: str, name: str) -> str:
    """The section of one command; of a group its commands' sections."""
    context = group.make_context(path, [], resilient_parsing=True)
    command = group.resolve_command(context, [name])[1]
    title = f"{path} {name}"
    if hasattr(command, "commands"):
        return f"\n## {title}\n\n{_prose(command.help)}\n" + "".join(
            _command(command, title, n) for n in command.commands
        )
    positional = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and not p.hidden and p.name != "help"]
    usage = " ".join([title, *(_takes(p) for p in positional), "[OPTIONS]" if options else ""]).strip()
    head = f"\n## {title}\n\n{_prose(command.help)}\n\n```text\n{usage}\n```\n"
    rows = [f"| {_code(_takes(p))} | {_cell(p.help)} |" for p in positional]
    rows += [f"| {_option(p)} | {_cell(p.help)} |" for p in options]
    return head + ("\n| option | what it is |\n|---|---|\n" + "\n".join(rows) + "\n" if rows else "")


def _option(param: Any) -> str:
    """The names of an option, and what it takes."""
    names = [f"`{name}`" for name in (*param.opts, *param.secondary_opts)]
    return ", ".join(names) + ("" if param.is_flag else f" {_code(_takes(param))}")


def _takes(param: Any) -> str:
    """What a parameter takes, in capitals."""
    if param.metavar:
        return str(param.metavar)
    if param.param_type_name == "argument":
        return str(param.name).upper()
    described = getattr(param, "type_descriptor", None)  # Typer's own since 0.29, Click's before
    kind = _plain(described.annotation) if described else {"text": str, "integer": int}.get(param.type.name, float)
    return {str: "TEXT", int: "INTEGER", float: "FLOAT"}.get(kind, "TEXT")


def _code(text: str) -> str:
    """``text`` as code in a cell, where a bar would end the cell."""
    return f"`{text.replace('|', '/')}`"


def _prose(text: str | None) -> str:
    return re.sub(r"``([^`]*)``", r"`\1`", inspect.cleandoc(text or ""))


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


# -- recipes --------------------------------------------------------------------------------------------------------------
RECIPES: tuple[tuple[str, type[BaseModel]], ...] = (
    ("expunge run", Recipe),
    ("expunge bench", Bench),
    ("expunge compare", Compare),
    ("expunge tune", Tune),
    ("expunge reveal", Reveal),
    ("expunge release", Release),
    ("expunge audit", Audit),
)
PARTS: tuple[tuple[str, str, type[BaseModel]], ...] = (
    ("[lora]", "LoRA's own settings, of every recipe that has `adapter`.", Adapter),
    ("[[methods]]", "A method of a comparison, with what only it has.", Entry),
    ("--policy", "Thresholds of an audit's verdict, a TOML file of their own.", Policy),
)


def recipes_page() -> str:
    """docs/reference/recipes.md: every key of every recipe, its type, its default and what it is."""
    head = (
        "# Recipes\n\n"
        + MADE.format(source="the settings' models")
        + "\nA recipe is a TOML or YAML file, `expunge run recipe.toml`; "
        "settings after it win (`max_steps=20`), and so do options.  A key that does not exist is refused with the "
        "nearest one that does.  Paths are taken from the folder of the recipe.\n\nTables of `expunge run`: "
        + ", ".join(f"`[{table}]`" for table in TABLES)
        + ".  `[method]` holds `name` and the method's [parameters](../methods.md), `[training]` any field of "
        "`transformers.TrainingArguments` (`lr`, `epochs` and `batch_size` are short for three of them), `[optimizer]` "
        "`name` and its parameters.\n"
    )
    parts = [f"\n## {name}\n\n{_fields(kind)}\n" for name, kind in RECIPES]
    parts += [f"\n## {name}\n\n{what}\n\n{_fields(kind)}\n" for name, what, kind in PARTS]
    return head + "".join(parts)


def _fields(kind: type[BaseModel]) -> str:
    """A table of the fields, and the docstring where it explains some that have no description."""

    text = (
        for_markdown(inspect.cleandoc(kind.__doc__ or ""))
        if any(not f.description for f in kind.model_fields.values())
        else ""
    )
    rows = [text, ""] if text else []
    rows += ["| key | type | default | what it is |", "|---|---|---|---|"]
    for name, field in kind.model_fields.items():
        table = next((t for t, key in TABLES.items() if key == name), None) if kind is Recipe else None
        what = field.description or (f"The table `[{table}]`." if table else "")
        rows.append(f"| `{name}` | {_type(field)} | {_default(field)} | {_cell(what)} |")
    return "\n".join(rows)


def _default(field: FieldInfo) -> str:
    """The default as a recipe would have it; nothing where there is none."""
    if field.is_required():
        return "*required*"
    value = field.get_default(call_default_factory=True)
    if value is None or value is PydanticUndefined or value in ({}, [], ()) or isinstance(value, BaseModel):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _type(field: FieldInfo) -> str:
    """The type, with its bounds."""
    bounds = []
    for m in field.metadata:
        for kind, sign in (
            (annotated_types.Gt, ">"),
            (annotated_types.Ge, "≥"),
            (annotated_types.Lt, "<"),
            (annotated_types.Le, "≤"),
        ):
            if isinstance(m, kind):
                bounds.append(f"{sign} {getattr(m, kind.__name__.lower())}")
    return ", ".join([_named(field.annotation), *bounds])


def _named(annotation: Any) -> str:
    """A type in a reader's words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return "file, folder or rows"
    if origin is Annotated:
        return _named(inner[0])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_named(a) for a in inner if a is not type(None)))
    if origin in (list, tuple, set):
        return f"list of {_named(inner[0])}" if inner else "list"
    if origin is dict or annotation is dict:
        return "table"
    words = {str: "text", int: "integer", float: "number", bool: "true or false"}
    return words.get(annotation, getattr(annotation, "__name__", str(annotation)))


# -- records --------------------------------------------------------------------------------------------------------------
FILES = {
    "RunRecord": "run.json",
    "AuditRecord": "audit.json",
    "FiguresRecord": "figures.json",
    "CompareRecord": "compare.json",
    "TuneRecord": "tune.json",
    "RevealRecord": "reveal.json",
    "GuardRecord": "guard.json",
    "AlternatesRecord": "alternates.json",
}


def records_page() -> str:
    """docs/reference/records.md: every key of every file that is read again."""
    head = (
        "# Records\n\n"
        + MADE.format(source="`expunge.record_types`")
        + "\nA record is a JSON file.  `expunge.record.read(PATH)` "
        "reads one and refuses a schema that it does not know; every value may be null.\n"
    )
    first = [getattr(record_types, name) for name in FILES if hasattr(record_types, name)]
    order = list(dict.fromkeys([*first, *_inside(first)]))
    return head + "".join(_record(kind) for kind in order)


def _inside(kinds: list[Any]) -> Iterator[Any]:
    """The tables that records hold, and those that these hold."""
    waiting = list(kinds)
    done: set[str] = {kind.__name__ for kind in kinds}
    while waiting:
        for hint in get_type_hints(waiting.pop(0)).values():
            for found in _tables(hint):
                if found.__name__ not in done:
                    done.add(found.__name__)
                    waiting.append(found)
                    yield found


def _tables(hint: Any) -> Iterator[Any]:
    if isinstance(hint, type) and hasattr(hint, "__required_keys__"):
        yield hint
    for inner in get_args(hint):
        yield from _tables(inner)


def _record(kind: Any) -> str:
    title = f"{FILES[kind.__name__]}" if kind.__name__ in FILES else kind.__name__
    rows = ["| key | type | in every record |", "|---|---|---|"]
    for key, hint in get_type_hints(kind).items():
        rows.append(f"| `{key}` | {_in_record(hint)} | {'yes' if key in kind.__required_keys__ else 'no'} |")
    said = "" if (kind.__doc__ or "").startswith("dict(") else _prose(kind.__doc__)
    return f"\n## {title}\n\n{said}\n\n" + "\n".join(rows) + "\n"


def _in_record(hint: Any) -> str:
    """A type of JSON; a table links to its own section."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (NotRequired, Required, Annotated):
        return _in_record(inner[0])
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_in_record(a) for a in inner if a is not type(None)))
    if origin is list:
        return f"list of {_in_record(inner[0])}"
    if origin is dict:
        return f"{{text: {_in_record(inner[1])}}}"
    if isinstance(hint, type) and hasattr(hint, "__required_keys__"):
        title = FILES.get(hint.__name__, hint.__name__)
        return f"[{title}](#{re.sub('[^a-z0-9_-]', '', title.lower())})"
    words = {str: "text", int: "integer", float: "number", bool: "true or false", Any: "any"}
    return words.get(
        hint, hint.__forward_arg__ if isinstance(hint, ForwardRef) else getattr(hint, "__name__", str(hint))
    )
