"""Any combiner over any forget loss: what the papers' own rows are single points of.

``forget`` names a loss by the row that has it, with that row's defaults (and its learning rate and alternates); ``margin``
is PDU's.  A loss from outside the library is ``FILE.py:NAME``, or the name that an installed package gives it
(:mod:`expunge.plugins`): a function of the forget answers, or an ``Objective`` with what else it reads.  A combiner from
outside is named likewise: a ``Combiner``, or a class or function that gives one without arguments.  In Python any method
can be mixed: ``dataclasses.replace(methods.npo(beta=0.5), combine=PCGrad())``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from expunge import plugins
from expunge.combine import MGDA, Combiner, NormalizedDifference, PCGrad, PrimalDual, TorchJD, WeightedSum, complete
from expunge.errors import InputError, nearest
from expunge.method import Method, Objective, method
from expunge.methods import levels, published
from expunge.methods.published import RETAIN, NonNegative, Positive, Retain, bilevel, check_budget

FORGET: dict[str, Callable[[], Method]] = {
    "gradient_ascent": published.gradient_ascent,
    "npo": published.npo,
    "simnpo": published.simnpo,
    "dpo": published.dpo,
    "idk_dpo": published.idk_dpo,
    "altpo": published.altpo,
    "margin": published.pdu,
    "wga": published.wga,
    "level": levels.level,
    "satimp": published.satimp,
    "undial": published.undial,
    "ce_u": published.ce_u,
    "flat": published.flat,
    "jensun": published.jensun,
}


def _known(name: str) -> str:
    if name not in FORGET and not plugins.is_file(name) and name not in (offered := plugins.names("loss")):
        known = ", ".join(map(repr, [*FORGET, *offered]))
        raise PydanticCustomError("forget", "there is no such loss; there are {known}", {"known": known})
    return name


def _known_combiner(name: str) -> str:
    if name != WEIGHTED and not plugins.is_file(name) and name not in (offered := plugins.names("combiner")):
        known = ", ".join(map(repr, [WEIGHTED, *offered]))
        own = ", ".join(COMBINERS)
        raise PydanticCustomError(
            "combiner",
            "there is no such combiner; there are {known} and FILE.py:NAME, and the methods {own} have their own",
            {"known": known, "own": own},
        )
    return name


WEIGHTED = "weighted_sum"
COMBINERS = ("constrained", "blur", "pcgrad", "mgda", "ngdiff", "torchjd")
Forget = Annotated[str, AfterValidator(_known)]
AnyCombiner = Annotated[str, AfterValidator(_known_combiner)]


@method(paper="arXiv:2506.05314", search={"max_multiplier": None})
def constrained(
    *,
    forget: Forget = "npo",
    budget: Positive | None = None,
    tolerance: NonNegative = 0.5,
    step_size: NonNegative = 1.0,
    multiplier: NonNegative = 1.0,
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    warmup_steps: Annotated[int, Field(ge=0)] | None = None,
    max_multiplier: Positive = 1000.0,
    retain: Retain = "nll",
) -> Method:
    """Any forget loss, subject to PDU's budget on the retain loss.

    A mixture of this library; the constraint is of Entesari et al. 2025.  λ starts at 1, an equal weight, and moves from
    the first step: PDU's own 100 and 5 are for the squared margin, which is hundreds of times as steep as these losses
    (``forget="margin"`` with them is ``pdu``).  These defaults are not tuned.  ``budget=None`` takes ``(1 + tolerance) ×``
    the start model's retain loss; with ``kl`` or ``js``, which start at 0, give one.
    """
    check_budget(budget, retain)
    combine = PrimalDual(budget, tolerance, step_size, multiplier, warmup, warmup_steps, max_multiplier)
    return _mixed(forget, retain, combine)


@method(paper="arXiv:2506.08164")
def blur(
    *,
    forget: Forget = "npo",
    gamma: NonNegative = 1.0,
    relative: bool = True,
    one_sided: bool = False,
    retain: Retain = "nll",
) -> Method:
    """Any forget loss with BLUR's priority over the retain loss.

    Reisizadeh et al. 2025.  γ is relative by default, so that it means the same for losses of any steepness: the forget
    part of a step is γ times as long as the retain gradient.  ``forget="npo"`` and ``relative=False`` is ``blur_npo``.
    Raises InputError for a relative γ over ``kl`` or ``js``, whose gradient is 0 at the start.
    """
    return _mixed(forget, retain, bilevel(gamma, relative, one_sided, retain))


@method(paper="arXiv:2001.06782")
def pcgrad(*, forget: Forget = "npo", retain: Retain = "nll") -> Method:
    """Any forget loss and a retain loss, with gradient surgery where they conflict.

    Yu et al. 2020.  A mixture: the paper is on multi-task learning; NPO is the default here.
    """
    return _mixed(forget, retain, PCGrad())


@method(paper="arXiv:1810.04650")
def mgda(*, forget: Forget = "npo") -> Method:
    """Any forget loss and a retain loss along the shortest common descent direction.

    Sener & Koltun 2018.  A mixture: the paper is on multi-task learning; NPO is the default here.  The smaller gradient
    gets the larger weight, so the step shrinks as either objective is done; for that the retain loss is ``nll``: a
    divergence from the target has the gradient 0 at the start, and MGDA would never leave it.
    """
    return _mixed(forget, "nll", MGDA())


@method(paper="arXiv:2410.22086")
def ngdiff(*, forget: Forget = "gradient_ascent") -> Method:
    """Any forget loss and a retain loss, both gradients at unit length (normalised gradient difference).

    Bu et al. 2024; gradient ascent as there, without the paper's learning-rate schedule.  The retain loss is ``nll``: at
    unit length a divergence from the target, whose gradient is 0 at the start, would be rounding noise.
    """
    return _mixed(forget, "nll", NormalizedDifference())


@method(paper="arXiv:2406.16232")
def torchjd(*, weighting: str = "UPGrad", forget: Forget = "npo", retain: Retain = "nll") -> Method:
    """Any forget loss and a retain loss, combined by a weighting of the library TorchJD.

    Quinton & Rey 2024.  ``weighting`` is a name from ``torchjd.aggregation`` that needs no arguments: UPGrad, AlignedMTL,
    DualProj, IMTLG, …; in Python ``combine.TorchJD(weighting)`` takes any.  Needs ``pip install 'expunge[torchjd]'``.
    """
    return _mixed(forget, retain, TorchJD(_weighting(weighting)))


@method(paper="arXiv:2404.05868")
def combined(*, forget: Forget = "npo", combiner: AnyCombiner = WEIGHTED, retain: Retain = "nll") -> Method:
    """Any forget loss and a retain loss, under any combiner: the plain sum, or one from outside the library.

    A mixture of this library; its defaults are NPO with a retain loss of weight 1 (Zhang et al. 2024).  ``combiner`` is
    ``weighted_sum``, ``FILE.py:NAME``, or what an installed package offers (entry points ``expunge.combiners``).  The
    library's other combiners have methods of their own: ``constrained``, ``blur``, ``pcgrad``, ``mgda``, ``ngdiff``,
    ``torchjd``.
    """
    return _mixed(forget, retain, WeightedSum() if combiner == WEIGHTED else _outside_combiner(combiner))


def _mixed(forget: str, retain: Retain, combine: Combiner) -> Method:
    """The method of ``forget`` with its forget loss only, a retain loss, and ``combine``."""
    made = FORGET[forget]() if forget in FORGET else _outside(forget)
    return replace(made, objectives={"forget": made.objectives["forget"], "retain": RETAIN[retain]}, combine=combine)


def _outside(name: str) -> Method:
    """A method of the loss ``name`` alone, from a file or a package."""
    loss = plugins.of_file("loss", name)[0] if plugins.is_file(name) else plugins.offered("loss", name)
    if not isinstance(loss, Objective) and not callable(loss):
        raise InputError(f"the loss {name} is a {type(loss).__name__}, neither a function nor an Objective")
    objective = loss if isinstance(loss, Objective) else Objective(loss, ("forget",))
    return Method({"forget": objective}, WeightedSum(), alternate="given" if "alternate" in objective.on else None)


def _outside_combiner(name: str) -> Combiner:
    """The combiner ``name`` of a file or a package, one of its own for each run: it may hold state."""
    is_file = plugins.is_file(name)
    given = plugins.of_file("combiner", name)[0] if is_file else plugins.offered("combiner", name)
    if isinstance(given, type) or not hasattr(given, "weights"):
        if not callable(given):
            raise InputError(f"the combiner {name} is a {type(given).__name__}, neither a Combiner nor a function")
        try:
            given = given()
        except TypeError as error:
            raise InputError(f"the combiner {name} cannot be made without arguments: {error}") from None
    return complete(copy.deepcopy(given))


def _weighting(name: str) -> Any:
    """The weighting ``name`` of TorchJD; InputError if it is not there or cannot be made of its defaults."""
    import torch

    try:
        from torchjd import aggregation
    except ImportError:
        raise InputError("the method torchjd needs the package of that name: pip install 'expunge[torchjd]'") from None
    known = [n.removesuffix("Weighting") for n in aggregation.__all__ if n.endswith("Weighting") and n != "Weighting"]
    if name not in known:
        raise InputError(f"torchjd: TorchJD has no weighting {name!r}{nearest(name, known)}; it has {', '.join(known)}")
    try:
        made = getattr(aggregation, f"{name}Weighting")()
        made(torch.eye(2))
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"torchjd: {name} cannot be made without arguments ({error}); in Python give combine=TorchJD(weighting)"
        ) from None
    except ImportError as error:
        raise InputError(f"torchjd: {name} needs more packages: {error}; pip install 'expunge[torchjd]'") from None
    return made
