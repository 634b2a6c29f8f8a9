"""``python -m expunge`` is ``expunge``."""

from expunge.cli import app

app()
