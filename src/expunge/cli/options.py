"""The command line made from the settings: a field with a description is an option, its default is said once."""

from __future__ import annotations

import functools
import inspect
import itertools
import pkgutil
import types
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

import typer
from pydantic import BeforeValidator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from typer.core import TyperGroup

from expunge.settings import check_filled, described_fields

Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object, and nothing else.")]
Quiet: TypeAlias = Annotated[bool, typer.Option("--quiet", help="No progress, no summary; errors and warnings show.")]
DryRun: TypeAlias = Annotated[
    bool, typer.Option("--dry-run", help="Check all that needs no model, print the plan, and write nothing.")
]
SIMPLE = (int, float, bool, str)


def from_settings(
    *kinds: str | tuple[str, ...],
    leave_out: Collection[str] = (),
    defaults: Mapping[str, Any] | None = None,
    required: Collection[str] = (),
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator for the body of a command: the described fields of ``kinds`` become its options.

    A kind is the full name of a settings class, or that and the only fields to take.  The body's first parameter gets what
    the user gave of them, by field; its other parameters are the command's own, as Typer reads them, and stand in place of
    fields of their name.  ``defaults``: of fields that have another one here; ``required``: options that must be given.

    The settings are imported when the command is called, by :class:`Commands`: ``expunge --help`` needs none of them.
    """

    def wrap(body: Callable[..., None]) -> Callable[..., None]:
        def build() -> Callable[..., None]:
            hints = get_type_hints(body, include_extras=True)
            own = [p.replace(annotation=hints[p.name]) for p in list(inspect.signature(body).parameters.values())[1:]]
            taken = {p.name for p in own} | set(leave_out)
            options: dict[str, inspect.Parameter] = {}
            for kind in kinds:
                name, *only = (kind,) if isinstance(kind, str) else kind
                for key, field in described(pkgutil.resolve_name(name)).items():
                    if key not in taken and key not in options and (not only or key in only):
                        options[key] = _option(key, field, (defaults or {}).get(key, field.default), key in required)

            def command(**values: Any) -> None:
                check_filled(values, "the command line")
                given = {name: values.pop(name) for name in options}
                body({name: value for name, value in given.items() if value not in (None, [])}, **values)

            parameters = [*filter(_is_argument, own), *options.values(), *itertools.filterfalse(_is_argument, own)]
            return _described_as(body, command, [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters])

        def deferred() -> None: ...

        deferred.build = build  # type: ignore[attr-defined]
        return _described_as(body, deferred, [])

    return wrap


class Commands(TyperGroup):
    """A group whose commands get their options when they are called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is named, in full."""
        name, command, rest = super().resolve_command(ctx, args)
        build = getattr(getattr(command, "callback", None), "build", None)
        return name, command if build is None else _in_full(name, build), rest


@functools.cache
def _in_full(name: str, build: Callable[[], Callable[..., None]]) -> Any:
    """The command that ``build`` makes, with its options."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_show_locals=False)
    app.command(name)(build())
    return typer.main.get_command(app)


def described(kind: Any) -> dict[str, FieldInfo]:
    """The fields of a settings class that have a description."""
    return {name: field for name, field in described_fields(kind).items() if field.description}


def _option(name: str, field: FieldInfo, default: Any, required: bool) -> inspect.Parameter:
    """One field as a parameter that Typer reads; None where the user does not give it, so the settings' default holds."""
    before = any(isinstance(m, BeforeValidator) for m in field.metadata)  # the settings read it from text
    kind: Any = str if before else _plain(field.annotation)
    flag = "--" + name.replace("_", "-")
    declared = [flag] if kind is bool and default is False else []
    if default is True:
        usual = f"  [default: {flag.removeprefix('--')}]"
    elif (
        required or default in ({}, ()) or any(default is nothing for nothing in (None, False, PydanticUndefined, ...))
    ):
        usual = ""
    else:
        usual = f"  [default: {default}]"
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    metavar = str(extra["metavar"]) if "metavar" in extra else None
    kind = list[str] if extra.get("repeated") else kind
    option = typer.Option(*declared, help=f"{field.description}{usual}", metavar=metavar)
    annotation = Annotated[kind if required else kind | None, option]  # type: ignore[valid-type]
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        annotation=annotation,
        default=inspect.Parameter.empty if required else None,
    )


def _plain(annotation: Any) -> type[Any]:
    """What Typer reads for a field's type: int, float or bool, else text, which the settings check."""
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = [a for a in get_args(annotation) if a is not type(None)]
        return _plain(kinds[0]) if len(kinds) == 1 else str
    if get_origin(annotation) is Literal:
        return str
    return annotation if annotation in SIMPLE else str


def _is_argument(parameter: inspect.Parameter) -> bool:
    return any(isinstance(a, typer.models.ArgumentInfo) for a in get_args(parameter.annotation))


def _described_as(
    body: Callable[..., None], command: Callable[..., None], parameters: list[inspect.Parameter]
) -> Callable[..., None]:
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    command.__doc__, command.__name__, command.__module__ = body.__doc__, body.__name__, body.__module__
    return command
