"""The Hugging Face hub: whether it answers, and the bars of its downloads.

Its library asks anew for each file of a cached model, six times, half a minute a file: offline, a
start would take minutes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from mipic_llm import launched

OFFLINE = "HF_HUB_OFFLINE"
SECONDS, AGAIN = 5.0, 1.0  # to answer in, and once it did not

_away = False  # found here, not asked for by the user


def ask_hub() -> None:
    """Before a hub id is read: where the hub does not answer, this process and its children use
    what its cache holds, with a note; asked again at the next call. Nothing is done where the user
    has decided (`HF_HUB_OFFLINE` 0 or 1)."""
    from huggingface_hub import constants, get_session
    from huggingface_hub.utils import disable_progress_bars

    if constants.HF_HUB_DISABLE_PROGRESS_BARS is None:  # the user has not decided
        disable_progress_bars()  # of small files, and of those that are here
    if not _away and (OFFLINE in os.environ or constants.HF_HUB_OFFLINE):
        return
    told = _away
    _turn(False)
    try:
        get_session().head(constants.ENDPOINT, timeout=AGAIN if told else SECONDS)
    except Exception as error:  # of the library's client, of which it has had three
        _turn(True)
        if not told and launched.first():
            why = str(error) or type(error).__name__
            print(f"note: {constants.ENDPOINT} does not answer ({why}); what its cache here holds "
                  f"is used ({OFFLINE}=0 asks it for each file)", flush=True)  # fmt: skip


@contextmanager
def download_bars() -> Iterator[None]:
    """Inside, downloads have bars on a terminal, unless the user has turned them off
    (`HF_HUB_DISABLE_PROGRESS_BARS`): of weights, which take minutes."""
    from huggingface_hub import constants
    from huggingface_hub.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    off = are_progress_bars_disabled()
    if constants.HF_HUB_DISABLE_PROGRESS_BARS or not off:
        yield
        return
    enable_progress_bars()
    try:
        yield
    finally:
        disable_progress_bars()


def _turn(away: bool) -> None:
    global _away
    from huggingface_hub import constants

    _away = constants.HF_HUB_OFFLINE = away
    if datasets := sys.modules.get("datasets.config"):  # which reads it once
        datasets.HF_HUB_OFFLINE = datasets.HF_DATASETS_OFFLINE = away  # type: ignore[attr-defined]
    if away:
        os.environ[OFFLINE] = "1"  # for children, and for libraries that come later
    else:
        os.environ.pop(OFFLINE, None)
