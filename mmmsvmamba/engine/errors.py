"""The error that a user can cause."""


class UserError(ValueError):
    """Something outside the code is wrong: a path, a file's content, an option.

    Its message says what was found, what was expected and what to do. The command-line tools print it alone, without
    a traceback, and exit with code 1.
    """
