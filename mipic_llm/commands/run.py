"""`mipic COMMAND`, `python -m mipic_llm COMMAND` and the files of launch/: one way to start.

A command is a file beside this one with `main(argv) -> exit code`. It reads its flags before it
imports what is slow, so that --help and a wrong flag answer at once.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import sys
import tempfile
from collections.abc import Callable
from typing import Any, NoReturn

from mipic_llm import __version__, launched
from mipic_llm.config import nearest
from mipic_llm.errors import EXIT_DONE, EXIT_LOST, EXIT_USER_ERROR, UserError
from mipic_llm.quiet import quiet

COMMANDS = {
    "train": "train a Matryoshka embedding model",
    "evaluate": "score a finished model at every layer and size",
    "compare": "compare runs, models or evaluations, with paired intervals",
    "mine": "find hard negatives, or pairs, for training rows",
    "export": "write portable models from a run: merged, or cut to a layer and a size",
    "merge": "scale what a run learnt, or merge several runs of one base",
    "report": "tables and plots of finished runs",
    "study": "compare methods: methods x seeds x conditions, with confidence intervals",
    "plan": "predict memory, speed and traffic of a training, without running it",
}
# What an operating system says of a place: no right, no room, a file where a folder should be.
_PLACES = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR,
           errno.EISDIR, errno.EEXIST, errno.EFBIG)  # fmt: skip
_LOST = (
    "another rank is gone ({}): its own log says why, unless it was killed, as a machine or "
    "container without memory does; a training goes on with --train.resume auto"
)
SYNOPSIS = f"""\
usage: mipic COMMAND [flags]        (the same: python -m mipic_llm COMMAND [flags])

{chr(10).join(f"  {name:<10}{text}" for name, text in COMMANDS.items())}

  mipic COMMAND --help    the command's flags
  mipic --version         the version

First steps:
  mipic train                                     the built-in example: minutes on two CPU cores
  mipic train --data.train mine.jsonl --model.name DIR_OR_HUB_ID --output_dir outputs/mine
  mipic evaluate --model outputs/mine/adapter --data pairs.csv

Several GPUs or processes:
  deepspeed --num_gpus 8 --module mipic_llm train --ds_config zero2 [flags]
  torchrun --nproc-per-node 8 -m mipic_llm train --ds_config zero2 [flags]
"""


def run(command: str | None = None) -> NoReturn:
    """Run a command on sys.argv and exit with its code. None: the first argument names it."""
    if command is None:
        run_main(dispatch)
    run_main(_main_of(command))


def dispatch(argv: list[str]) -> int | None:
    """Run the command that `argv` begins with. Raises UserError for one that does not exist."""
    while argv and argv[0].startswith(("--local_rank=", "--local-rank=")):
        argv = argv[1:]  # put first by launchers; ranks come from the environment
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(SYNOPSIS, end="")
        return EXIT_DONE
    name, rest = argv[0], argv[1:]
    if name in ("-V", "--version"):
        print(__version__)
        return EXIT_DONE
    if name not in COMMANDS:
        hint = nearest([name], COMMANDS) or f"; give one of: {', '.join(COMMANDS)}"
        raise UserError(f"mipic has no command {name}{hint}")
    sys.argv = [f"mipic {name}", *rest]  # what --help calls the program
    return _main_of(name)(rest)


def _main_of(command: str) -> Callable[[list[str]], int | None]:
    return importlib.import_module(f"mipic_llm.commands.{command}").main


def run_main(main: Callable[[list[str]], int | None], argv: list[str] | None = None) -> NoReturn:
    """Run main(argv) and exit: its code, 2 after UserError or a place that cannot be written (one
    line, from the first rank that has one), 130 after ^C, 141 when whoever reads the output went
    away.

    Every rank exits with the same code. Other exceptions propagate with their traceback, but for
    those that follow from another rank's UserError, or from its end (one line, 1).
    """
    _open_streams()
    quiet()
    try:
        given = sys.argv[1:] if argv is None else argv
        _check_letters(given)
        code = main(given)
    except UserError as error:
        code = _told(error)
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except Exception as error:
        ranks = _joined()
        if line := _of_the_machine(error):
            raise SystemExit(_told(UserError(line))) from error
        if ranks and ranks.error_elsewhere():
            ranks.part()
            code = EXIT_USER_ERROR
        elif ranks and (what := ranks.lost(error)):
            code = _told(UserError(_LOST.format(what)), EXIT_LOST)
        else:
            raise
    raise SystemExit(code or EXIT_DONE)


def _open_streams() -> None:
    """What a process was started without (`>&-`, some daemons) leads nowhere: else its next file
    would get the number of its output, and the first line that is said would end it."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115


def _of_the_machine(error: Exception) -> str | None:
    """The line of an error that is no fault of ours: a place that cannot be written or is not
    there, a limit of this machine or container. None for any other."""
    if str(error) == "can't start new thread":
        return ("this machine or container lets this user start no more threads; raise that limit "
                "(ulimit -u, or the container's limit of pids)")  # fmt: skip
    if os.strerror(errno.EMFILE) in str(error):  # gloo says it in an error of its own
        return f"{os.strerror(errno.EMFILE)}; raise that limit (ulimit -n)"
    if not isinstance(error, OSError):
        return None
    if error.errno == errno.ENOENT:
        return _without_place()
    if error.errno not in _PLACES:
        return None
    place = f"{error.filename}: " if error.filename else ""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    what = "free some room" if full else "check the path and its permissions"
    return f"{place}{error.strerror}; {what}, or name another place (such as --output_dir)"


def _without_place() -> str | None:
    """What this process lacks of a directory to stand in and one for temporary files."""
    try:
        os.getcwd()
    except OSError as error:
        return f"the directory that you stand in is gone ({error.strerror}); go to another one"
    try:
        tempfile.gettempdir()
    except OSError as error:
        return (f"temporary files: {error.strerror}; name a directory that can be written in the "
                "environment variable TMPDIR (in a container, mount one at /tmp)")  # fmt: skip
    return None


def _check_letters(argv: list[str]) -> None:
    """UserError for a word that this process could not decode: its files would get another name,
    and a run that ends in one would end before its export."""
    for word in argv:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise UserError(f"{ascii(word)} has letters that are not those of this locale; set "
                            "PYTHONUTF8=1, or give a name in UTF-8") from None  # fmt: skip


def _told(error: UserError, code: int = EXIT_USER_ERROR) -> int:
    """Print the line of an error, end the collectives. -> the exit code."""
    ranks = _joined()
    # Before ranks are joined, they differ by their machine at most.
    if ranks.first_error(alone=code == EXIT_LOST) if ranks else _speaks():
        sys.stdout.flush()
        own = os.environ.get("RANK", "0")
        alone = own in ("", "0") or os.environ.get("WORLD_SIZE", "") in ("", "1")
        where = "" if alone else f" (rank {own})"
        print(f"error{where}: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
    if ranks:
        ranks.part()
    return code


def _speaks() -> bool:
    """Whether this process tells its error, of ranks that are not joined."""
    try:
        return launched.first_here()
    except UserError:  # which is told
        return True


def _joined() -> Any:
    """The module of the ranks' collectives, where they are joined."""
    ranks = sys.modules.get("mipic_llm.runtime.ranks")
    return ranks if ranks and ranks.world_size() > 1 else None


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are UserErrors: one line, exit code 2."""

    def __init__(self, command: str, about: str | None) -> None:
        form = argparse.RawDescriptionHelpFormatter
        super().__init__(prog=f"mipic {command}", description=about, formatter_class=form)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{self.prog}: {message}; see --help")
