"""Speed and memory, side by side with a naive baseline kept here.  Not part of the package."""
