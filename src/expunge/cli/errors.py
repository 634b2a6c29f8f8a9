"""Around the work of a command: what a person has to mend, or what failed, is one sentence; see ``unexpected``."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from expunge import processes
from expunge.cli.quiet import without_bars
from expunge.errors import RunFailed


@contextlib.contextmanager
def running(*, as_json: bool, quiet: bool) -> Iterator[None]:
    """Around the work of a command: with ``as_json`` whatever prints goes to standard error.

    Of a run that failed the warnings are printed before the sentence.
    """
    from expunge.cli import warned

    try:
        with contextlib.ExitStack() as stack:
            if as_json:
                stack.enter_context(contextlib.redirect_stdout(sys.stderr))
            if quiet or not processes.is_main():
                stack.enter_context(without_bars())
            yield
    except RunFailed as error:
        warned.print_all(w for w in (error.record or {}).get("warnings", ()) if w not in str(error))
        raise
