"""What a run will take before it is started: memory by part, steps, time, and what fits."""
