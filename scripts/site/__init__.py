"""What the site's build needs besides Zensical: formulas as MathML, docstrings as Markdown."""
