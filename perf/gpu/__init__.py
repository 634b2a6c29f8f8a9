"""What is run on one GPU, and rehearsed on a CPU at tiny size: ``check`` (is it right?), ``step`` (how fast, how small?), ``tofu``."""
