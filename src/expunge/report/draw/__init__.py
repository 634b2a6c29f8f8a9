"""Figures as SVG or PNG: ``curves`` of a run, a ``forest`` of intervals, a ``tradeoff`` with its ``labels``."""
