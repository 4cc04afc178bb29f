"""Chatter of libraries that tells a user nothing, dropped message by message. All else is shown.
And two of them imported without torch's compiler, and the tokenizers library kept from hanging."""

from __future__ import annotations

import importlib
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache

WARNINGS = (
    r"`torch\.distributed\.\w+` is deprecated",  # DeepSpeed's calls, not ours
    r"`is_gradient_checkpointing` is deprecated",  # peft's call
    r"You have passed exclude_modules=",  # our adapters leave out a pooler that few models have
)
LOGGED = (
    # Our exports carry the old key on purpose: older loaders need it.
    r"The `word_embedding_dimension` argument was renamed",
    r"The modules are dequantized in",  # to merge into them: asked for
    r"Failed to load CPU gemm_4bit_forward from kernels-community",
    r"This model was loaded in torch\.\w+ on CPU",  # by the proof of an export
)


# Once the tokenizers library has used all cores in a process, a fork of that process hangs where
# the library does so again; and a user's own code may fork. So the library uses them only within
# `all_cores`, and never in a forked process. "no" is our value of this variable: a user's own would
# be true or false, and is left alone.
CORES, SERIAL = "TOKENIZERS_PARALLELISM", "no"
_forked = _inside = False


def _note_fork() -> None:
    """In a new process: another thread of the old one may have been within `all_cores`."""
    global _forked
    _forked = True
    if _inside:
        os.environ[CORES] = SERIAL


os.register_at_fork(after_in_child=_note_fork)


@contextmanager
def all_cores() -> Iterator[None]:
    """Inside, tokenizers use all cores; not in a forked process, and not where the user has set
    TOKENIZERS_PARALLELISM, which then holds."""
    global _inside
    if _forked or os.environ.get(CORES) != SERIAL:
        yield
        return
    os.environ[CORES], _inside = "true", True
    try:
        yield
    finally:
        os.environ[CORES], _inside = SERIAL, False


def only_pooler_left_out(message: str) -> bool:
    """A load report of transformers in which nothing but the unused pooler was left out."""
    if "LOAD REPORT" not in message:
        return False
    keys = [line.split("|")[0].strip() for line in message.splitlines() if line.count("|") >= 2]
    keys = [key for key in keys if key and key != "Key" and not set(key) <= set("-+")]
    return bool(keys) and all(key.startswith("pooler.") for key in keys)


class Chatter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        return not (any(re.search(p, message) for p in LOGGED) or only_pooler_left_out(message))


@cache
def quiet() -> None:
    """Call before the libraries are imported, as commands and the API do; a second call is free."""
    os.environ.setdefault(CORES, SERIAL)
    for pattern in WARNINGS:
        warnings.filterwarnings("ignore", message=pattern, category=Warning)
    chatter = Chatter()
    if logging.lastResort is not None:
        logging.lastResort.addFilter(chatter)
    for name in ("transformers.modeling_utils", "transformers.utils.loading_report",
                 "transformers.integrations.bitsandbytes",
                 "bitsandbytes.backends.cpu.ops", "sentence_transformers.base.model"):  # fmt: skip
        logging.getLogger(name).addFilter(chatter)


def import_bitsandbytes() -> None:
    """Call before peft is imported, which imports bitsandbytes, with 4 bits or without.

    The four functions that it hands to torch's compiler serve devices for which bitsandbytes has no
    kernels: a CPU and CUDA have some. Where there is no bitsandbytes, whoever needs it says.
    """
    import_uncompiled("bitsandbytes")


def import_uncompiled(name: str) -> None:
    """Import a module that hands functions to torch's compiler as it is imported, which imports the
    compiler: a seventh of a run's start (1 of 6.5 CPU seconds, 540 modules). Where nobody calls
    those functions, this leaves them as they are written. A module that is not here is left out."""
    if name in sys.modules:
        return
    switch, before = "TORCHDYNAMO_DISABLE", os.environ.get("TORCHDYNAMO_DISABLE")
    os.environ[switch] = "1"
    try:
        with suppress(ImportError):
            importlib.import_module(name)
    finally:
        if before is None:
            del os.environ[switch]
        else:
            os.environ[switch] = before
