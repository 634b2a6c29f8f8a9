"""What decides the demo, as a value."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from expunge.unlearning.settings import Recipe


def _help(name: str) -> str:
    return str(Recipe.model_fields[name].description)


class Demo(BaseModel):
    """The settings of the run that a user may change; all others are the demo's own."""

    model_config = ConfigDict(extra="forbid")
    out: str = Field("expunge-demo", description="Folder for the run and its inputs.")
    seed: int = Field(0, ge=0, description="Seed of the data order and the adapter.")
    device: str | None = Field(None, description=_help("device"))
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="Number format of the frozen weights.")
    limit: int | None = Field(None, ge=1, description=_help("limit"))
    chat_template: bool = Field(True, description=_help("chat_template"))
    overwrite: bool = Field(False, description="Write over an earlier demo.")

    @property
    def of_run(self) -> dict[str, Any]:
        """The settings of each run."""
        return self.model_dump(exclude={"out"})
