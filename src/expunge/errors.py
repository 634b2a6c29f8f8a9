"""The one error a user is meant to read: what is wrong, where, and what to do."""


class InputError(ValueError):
    """Bad input from the user; the message is one sentence that names the fix."""
