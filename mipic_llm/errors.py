"""The one exception that means: the user can fix this."""

from __future__ import annotations


class UserError(ValueError):
    """Bad input. Its message is one line: what, where, what to do. Exit code 2, no traceback."""


EXIT_DONE = 0
EXIT_USER_ERROR = 2
EXIT_STOPPED = 75  # stopped by a signal after saving; start again with --train.resume auto
