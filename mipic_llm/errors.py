"""The one exception that means: the user can fix this."""

from __future__ import annotations

import re


def masked(text: str) -> str:
    """The text without the user and password of every URI in it."""
    return re.sub(r"(\w://)[^/\s]*@", r"\1***@", text)


def one_line(error: BaseException, most: int = 300) -> str:
    """What an error says, at most so many characters of it; its kind where it says nothing."""
    return " ".join(str(error).split())[:most] or type(error).__name__


class UserError(ValueError):
    """Bad input. Its message is one line: what, where, what to do; passwords in URIs are masked.
    Exit code 2, no traceback."""

    def __init__(self, message: object = "") -> None:
        text = masked(str(message))
        if len(text) > 1200:  # a stranger's names may be long; what to do stands at the end
            text = f"{text[:800]} .. {text[-300:]}"
        super().__init__(text)


def kernel_fault(said: Exception | str, without: str) -> str:
    """What a compiler or driver said of a kernel that was tried before its use, in a line.
    UserError where it broke the GPU for this process; without: the flag that does without it."""
    text = said if isinstance(said, str) else f"{type(said).__name__}: {said}"
    text = " ".join(text.split())[:220]
    if "CUDA error" in text:  # every later call would say the same
        raise UserError(
            f"a kernel that was tried before its use broke down on this GPU ({text}), "
            f"which this process cannot use any more; start again with {without}"
        )
    return text


EXIT_DONE = 0
EXIT_INCOMPLETE = 1  # done, but files of the run were deleted meanwhile
EXIT_LOST = 1  # another rank is gone; a training goes on with --train.resume auto
EXIT_USER_ERROR = 2
EXIT_STOPPED = 75  # stopped by a signal after saving; start again with --train.resume auto
