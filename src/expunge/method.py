"""A method as a value, and the registry that knows every method by name.

The signature of the function that makes a method is its schema: the command line, recipes, validation, the
documentation table and the run record all read it.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_type_hints

from torch import Tensor

from expunge import plugins
from expunge.combine import Combiner
from expunge.errors import InputError, nearest, shortened
from expunge.forward.view import Positions
from expunge.sophia import Settings as Sophia


@dataclass(frozen=True)
class Activations:
    """The reference model's hidden states after decoder layer ``layer``, for a loss that compares them."""

    layer: int


Reference = Literal["token_logp", "logits", "level"] | Activations
Status = Literal["unreproduced", "reproduced", "custom"]  # custom: from outside the library, without a paper


@dataclass(frozen=True)
class Objective:
    """One loss on one or more streams.

    ``on`` names the streams in the order of the loss's positional arguments; none for a loss of the weights alone, which
    is the same in every micro-batch.  ``reference`` says what the loss reads of the reference model: ``token_logp`` is
    cached once, ``logits`` needs the reference at every step, ``Activations(layer)`` only its lower layers.  ``level``:
    the token log-probabilities of another model, which never saw the rows, cached once, too.
    """

    loss: Callable[..., Tensor]
    on: tuple[str, ...]
    reference: Reference | None = None
    positions: Positions = "answer"

    @property
    def function(self) -> Callable[..., Tensor]:
        """The loss without the parameters that were bound to it."""
        loss = self.loss
        while isinstance(loss, functools.partial):
            loss = loss.func
        return loss

    @property
    def name(self) -> str:
        """The loss's own name, such as ``npo``."""
        return getattr(self.function, "__name__", type(self.function).__name__)

    @property
    def measures_knowledge(self) -> bool:
        """Whether the loss falls monotonically as a text is forgotten; one that does not is marked ``not_monotone``."""
        return getattr(self.function, "measures_knowledge", True)


@dataclass(frozen=True)
class Method:
    """Objectives, how their gradients are combined, and the source of the alternate answers, if a loss reads them.

    The first objective is the forget loss, the second the retain loss, whatever their names.
    ``alternate``: ``given`` in the data, a ``refusal`` (drawn for each row, or the one in ``refusal``), or ``generated``
    by the target model itself.  ``negate`` c: after training the update is reversed, θ ← θ_target - c (θ - θ_target).
    ``learning_rate`` is the paper's for full fine-tuning, ``lora_learning_rate`` for LoRA where it has one (None: 20 ×
    the other).  ``trainable`` is a regular expression on the names of weights: where given, only those train, unless the
    user says otherwise.  ``optimizer``: Sophia with its
    settings, or None for the one that the training argument ``optim`` names.  ``fit`` sets the method's values for
    one model, see :func:`fitted`; ``chosen``: those values.  ``name`` and ``parameters`` are set by :func:`method`.
    """

    objectives: Mapping[str, Objective]
    combine: Combiner
    alternate: Literal["given", "refusal", "generated"] | None = None
    refusal: str | None = None
    negate: float | None = None
    learning_rate: float = 1e-5
    lora_learning_rate: float | None = None
    trainable: str | None = None
    optimizer: Sophia | None = None
    fit: Callable[[Method, Any, Iterable[Mapping[str, Tensor]]], Method] | None = field(default=None, compare=False)
    chosen: Mapping[str, Any] = field(default_factory=dict)
    name: str = "custom"
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams its objectives read, in order of first use."""
        return tuple(dict.fromkeys(s for o in self.objectives.values() for s in o.on))

    @property
    def reference(self) -> bool:
        """Whether any objective reads the reference model."""
        return any(o.reference for o in self.objectives.values())

    @property
    def reads_level(self) -> bool:
        """Whether any objective reads a model that never saw the rows."""
        return any(o.reference == "level" for o in self.objectives.values())


def fitted(method: Method, model: Any, batches: Iterable[Mapping[str, Tensor]]) -> Method:
    """``method`` with its values for ``model``, which has not trained yet, and ``batches`` of its forget set.

    A method without ``fit`` is returned as it is.
    """
    return method.fit(method, model, batches) if method.fit else method


@dataclass(frozen=True)
class Entry:
    """A row of the method table.

    ``search``: parameter -> the range that ``expunge tune`` tries, as on its command line, or None for one that it leaves.
    ``published``: the method of a paper that this one of the library's own builds on.
    """

    name: str
    make: Callable[..., Method]
    paper: str
    status: Status
    search: Mapping[str, str | None] = field(default_factory=dict)
    published: str = ""

    @property
    def source(self) -> str:
        """The file and line of the function."""
        maker = inspect.unwrap(self.make)
        return f"{inspect.getsourcefile(maker)}:{inspect.getsourcelines(maker)[1]}"

    @property
    def summary(self) -> str:
        """The first sentence of the docstring."""
        return (inspect.getdoc(self.make) or "").split("\n", 1)[0]

    @property
    def streams(self) -> tuple[str, ...] | None:
        """The rows it reads with its default parameters: forget, retain, alternate; None where those make no method."""
        try:
            return self.make().streams
        except (InputError, AttributeError, TypeError):
            return None

    @property
    def defaults(self) -> dict[str, Any]:
        """Parameter -> default value."""
        return {n: p.default for n, p in inspect.signature(self.make).parameters.items()}


METHODS: dict[str, Entry] = {}  # filled by importing expunge.methods; see entries()


def method(
    *,
    paper: str = "",
    status: Status = "unreproduced",
    search: Mapping[str, str | None] | None = None,
    published: str = "",
) -> Callable[[Callable[..., Method]], Callable[..., Method]]:
    """Register a function of keyword-only parameters with defaults as a method under its own name.

    ``search``: ranges for ``expunge tune`` that suit a parameter better than a tenth to ten times its default;
    ``published``: what ``as_published`` takes in its place; see :class:`Entry`.
    """

    def register(make: Callable[..., Method]) -> Callable[..., Method]:
        name = make.__name__
        if not make.__module__.startswith("expunge.methods."):
            entries()  # the library's own are registered first: their names are reserved
        if name in METHODS and _file(METHODS[name].make) != _file(make):
            raise InputError(f"there is a method {name!r} already ({METHODS[name].source}); give yours another name")

        @functools.wraps(make)
        def stamped(**parameters: Any) -> Method:
            values = validate(name, parameters)
            if not isinstance(built := make(**values), Method):
                raise InputError(f"the method {name} gave a {type(built).__name__}, not a Method")
            return replace(built, name=name, parameters=METHODS[name].defaults | values)

        for key in search or {}:
            if key not in inspect.signature(make).parameters:
                raise InputError(f"the method {name} has no parameter {key!r}, which its search names")
        METHODS[name] = Entry(name, stamped, paper, status, dict(search or {}), published)
        return stamped

    return register


def _file(make: Callable[..., Method]) -> Path:
    return Path(inspect.getsourcefile(inspect.unwrap(make)) or "").resolve()


def entries() -> Mapping[str, Entry]:
    """Every method of the library, and those registered from outside."""
    importlib.import_module("expunge.methods")  # it fills the table
    return METHODS


def entry(name: str) -> Entry:
    """The row called ``name``, in the library or in an installed package, or that of ``FILE.py:NAME``.

    InputError for an unknown name, with the nearest one.
    """
    if name in entries():
        return METHODS[name]
    if plugins.is_file(name):
        return _registered(plugins.of_file("method", name)[0], name)
    if (plugin := plugins.offered("method", name)) is not None:
        return _registered(plugin, name)
    known = [*METHODS, *plugins.names("method")]
    raise InputError(f"there is no method {name!r}{nearest(name, known)}; `expunge methods` lists them all")


def _registered(make: Any, spec: str) -> Entry:
    """The row of a function from outside; one without the decorator is registered here."""
    for row in METHODS.values():
        if row.make is make:
            return row
    if not inspect.isfunction(make):
        raise InputError(f"the method {spec} is no function that gives a Method, but a {type(make).__name__}")
    for parameter in inspect.signature(make).parameters.values():
        if parameter.kind is not parameter.KEYWORD_ONLY or parameter.default is parameter.empty:
            raise InputError(
                f"the method {spec} must take keyword-only parameters with defaults, unlike {parameter.name}"
            )
    method(status="custom")(make)
    return METHODS[make.__name__]


def build(name: str, parameters: Mapping[str, Any] | None = None) -> Method:
    """The method ``name`` with ``parameters``, checked against its signature."""
    return entry(name).make(**dict(parameters or {}))


def validate(name: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """``parameters`` converted to the types of the method's signature; strings such as ``"0.5"`` are parsed."""
    from pydantic import TypeAdapter, ValidationError

    make = inspect.unwrap(METHODS[name].make)
    hints = get_type_hints(make, include_extras=True)
    accepted = inspect.signature(make).parameters
    values = {}
    for key, value in parameters.items():
        if key not in accepted:
            raise InputError(f"{name} has no parameter {key!r}{nearest(key, accepted)}; it takes {', '.join(accepted)}")
        try:
            values[key] = TypeAdapter(hints[key]).validate_python(value)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise InputError(f"{name}: {key}={shortened(value)} does not fit: {reason}") from None
        if isinstance(values[key], float) and not math.isfinite(values[key]):
            raise InputError(f"{name}: {key} must be a finite number, not {values[key]}")
    return values
