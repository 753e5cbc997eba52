"""What a user got wrong, in one clear line."""


class InputError(ValueError):
    """A mistake in the user's input: names the value, what would be right and what to do.

    The command line prints it and exits with status 2; nothing has been written by then. Anything else that is
    raised is a bug of this program and keeps its traceback.
    """


class UnreadableError(InputError):
    """A file that cannot be read now, and perhaps can be later: says nothing about what is in it."""
