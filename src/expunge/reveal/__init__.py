"""Reveal: search for instructions whose answers show what a model knows, and write these as a forget set."""
