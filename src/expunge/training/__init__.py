"""Training a method: ``trainer``, its ``arguments``, and what it uses: ``gradients``, ``reference``, ``curvature``, ``stopping``."""
