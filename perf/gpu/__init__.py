"""What is run on one GPU, rehearsed on a CPU at tiny size: ``check`` (is it right?), ``step`` (how fast?), ``tofu``."""
