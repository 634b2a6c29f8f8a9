"""What ``expunge run`` and :func:`expunge.unlearn` do: ``settings`` (the recipe), ``run``, ``describe`` (the record)."""
