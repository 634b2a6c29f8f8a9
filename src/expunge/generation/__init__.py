"""Every text that a model writes: ``greedy``, ``sample`` and ``decode`` (from known prefixes), over one ``cache``."""
