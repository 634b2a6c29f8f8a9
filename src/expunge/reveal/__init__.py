"""Reveal: find instructions that make a model tell what it knows, and write it down as a forget set."""
