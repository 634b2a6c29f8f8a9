"""What is run on one GPU: correctness, speed and memory, TOFU.  Rehearsed on a CPU at tiny size; not part of the package."""
