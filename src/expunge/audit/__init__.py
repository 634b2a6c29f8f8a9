"""The audit of a model that was made to forget: is it gone, is the rest still there, does it come back?"""
