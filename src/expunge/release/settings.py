"""The settings of a release: a run's settings, and those of the loop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from expunge import hub
from expunge.errors import InputError
from expunge.settings import checked, extract_settings
from expunge.unlearning import settings as recipe
from expunge.unlearning.settings import Recipe

LORA = {"r": 8, "alpha": 16}  # defaults of each module
REFUSED = (
    "method",
    "parameters",
    "adapter",
    "quantize",
    "optimizer",
    "optimizer_parameters",
    "as_published",
)  # settings of a run only
NotInfinite = Field(ge=0, allow_inf_nan=False)
NoneByName = BeforeValidator(lambda value: None if value == "none" else value)  # None on the command line


class Release(BaseModel):
    """All settings of a release.

    ``steps``: how many at most.  ``forget_coefficient`` η_f and ``retain_coefficient`` η_r: how much of a step's modules is
    subtracted and added; with η_r = 0, or without retain data, there is no retain module.  ``orthogonality`` λ: the weight
    of the penalty between the two; 0 trains without it.  ``utility``: rows of text on which the model's own perplexity is
    watched (``retain`` is, if this is not given).  ``utility_budget``: by which share the watched figure may get worse; the
    last step inside is kept; None watches nothing.  ``self_retain``: retain data are that many neutral rows which the
    model writes itself.  ``rank``: of the adapter that is saved; None keeps the sum of all modules' ranks, which is exact.
    ``run`` holds the further settings of :class:`~expunge.unlearning.settings.Recipe`; ``merge`` writes whole weights there.

    5 steps, η_f = 0.3, η_r = 0.1, a budget of 5 % and LoRA of rank 8 and alpha 16 on all linear layers are our choice, not
    the paper's, whose values are not known here; λ = 0.5 is O-LoRA's.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    steps: int = Field(5, ge=1, description="How many steps at most.")
    forget_coefficient: Annotated[float, NotInfinite] = Field(
        0.3, description="How much of a step's forget module is subtracted."
    )
    retain_coefficient: Annotated[float, NotInfinite] = Field(
        0.1, description="How much of a step's retain module is added; 0 trains none."
    )
    orthogonality: Annotated[float, NotInfinite] = Field(
        0.5, description="Weight of the penalty between the two modules."
    )
    utility: Any = Field(None, description="Rows of text on which the model's own perplexity is watched.")
    utility_budget: Annotated[Annotated[float, NotInfinite] | None, NoneByName] = Field(
        0.05,
        description="By which share the watched loss may rise (of --utility the perplexity, else of the retain set the "
        "nll); the last step inside is kept.",
        json_schema_extra={"metavar": "SHARE|none"},
    )
    self_retain: int = Field(
        0,
        ge=0,
        description="No retain set: N neutral rows that the model writes itself.",
        json_schema_extra={"metavar": "N"},
    )
    rank: Annotated[Annotated[int, Field(gt=0)] | None, NoneByName] = Field(
        None,
        description="Rank of the adapter that is saved; none keeps the sum of all modules' ranks, which is exact.  "
        "[default: none]",
        json_schema_extra={"metavar": "R|none"},
    )
    run: Recipe

    @property
    def parameters(self) -> dict[str, Any]:
        """The loop's own settings by name, as the record holds them; of ``utility`` the record says elsewhere."""
        return {name: getattr(self, name) for name in type(self).model_fields if name not in ("run", "utility")}

    @property
    def names(self) -> dict[str, str]:
        """Path -> its name in the record."""
        path, name = self.utility, self.run.data_name
        is_renamed = name and isinstance(path, str | Path) and Path(path).exists()
        return self.run.names | ({str(path): f"{name}/{Path(path).name}"} if is_renamed else {})


OWN_FIELDS = set(Release.model_fields) - {"run"}


def make(values: Mapping[str, Any], where: str = "the release") -> Release:
    """``values`` validated; InputError for the first invalid one."""
    hub.refuse(values, where)
    for key in REFUSED:
        if values.get(key):
            raise InputError(f"{where}: {key} is for `expunge run`; a release trains LoRA modules on the plain loss")
    run_values = {k: v for k, v in values.items() if k not in OWN_FIELDS and k not in REFUSED}
    lora = run_values.get("lora") or {}
    if isinstance(lora, Mapping):
        run_values["lora"] = LORA | dict(lora)
    run = recipe.make({**run_values, "adapter": "lora"}, where)
    release = checked(Release, {k: v for k, v in values.items() if k in OWN_FIELDS} | {"run": run}, where)
    if release.self_retain and run.retain is not None:
        raise InputError(
            f"{where}: retain rows are given, or written by the model (self_retain); leave out one of the two"
        )
    if release.rank and run.merge:
        raise InputError(f"{where}: rank is of an adapter, and merge writes whole weights; leave out one of the two")
    if "resume_from_checkpoint" in run.training:
        raise InputError(
            f"{where}: a release goes on after its last whole step by itself; leave resume_from_checkpoint out"
        )
    return release


def read_file(path: str | Path) -> dict[str, Any]:
    """The settings of a recipe for a release: keys of :class:`Release` and of a run, ``[lora]`` and ``[training]``."""
    return recipe.read(path)


def override(values: Mapping[str, Any], pairs: Iterable[str]) -> dict[str, Any]:
    """``values`` with ``key=value`` settings: a field of :class:`Release`, or a setting of a run."""
    return recipe.override(*extract_settings(values, pairs, OWN_FIELDS), others=OWN_FIELDS)
