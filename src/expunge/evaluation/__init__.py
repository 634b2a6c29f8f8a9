"""How much of a text a model knows: figures before and after, for any checkpoint."""
