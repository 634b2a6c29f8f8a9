"""What is to be run on a GPU: ``check`` (is it right there?), ``step`` (how fast, how small?).  README.md says how."""
