"""Training a method: ``trainer``, its ``arguments``, and ``gradients``, ``reference``, ``curvature``, ``stopping``."""
