"""What a person who waits sees: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Mapping
from typing import Any

LINE_SECONDS = 5.0  # shortest time between two lines
LONGEST_SILENCE = 60.0  # a log that stands still longer looks dead
LINES_PER_RUN = 20
PATIENCE = 10.0  # a wait that is over by then needs no word


class Progress:
    """Shows each metric row of a run of `total_steps` that begins after `start_step`.

    On a terminal and in a notebook a tqdm bar. Where stderr is a pipe, a file (as under the
    deepspeed launcher on several hosts) or a terminal of no size (a container's) plain lines: the
    first and the last step, and between them about 20 per run, 5 to about 60 seconds apart.
    `enabled` is False on every rank but the first.

    Rows have the keys of metrics.jsonl; shown where present: `loss`, `loss/<part>`, `lr`,
    `tokens_per_second`, `padding_share` (0 to 1), `memory_gib`. An output that was closed ends the
    display, and nothing else.
    """

    def __init__(
        self, total_steps: int, start_step: int = 0, enabled: bool = True,
        began: float | None = None, what: str = "step", patience: float = 0.0,
    ) -> None:  # fmt: skip
        """began: time.monotonic() at the start of the first step; None = now. what: a step's name,
        where it is no training's. patience: seconds before anything is shown; above 0, the bar is
        wiped off at the end."""
        self.total, self.enabled, self._what = total_steps, enabled, what
        self._patience = patience
        self._start_step, self._start = start_step, time.monotonic() if began is None else began
        self._first: tuple[int, float] | None = None  # first step of this process, when it ended
        self._last_step, self._last_line = start_step, float("-inf")
        self._row: Mapping[str, float] = {}  # the last one with figures
        self._bar: Any = None
        if enabled and (in_notebook() or _has_screen()):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a notebook without ipywidgets has a text bar
                from tqdm.auto import tqdm
            width = "" if in_notebook() else ":12"  # a widget draws the bar itself
            shape = f"{{percentage:3.0f}}%|{{bar{width}}}| {{n_fmt}}/{{total_fmt}} {{postfix}}"
            self._bar = tqdm(
                total=total_steps, initial=start_step, dynamic_ncols=True, delay=patience,
                bar_format=shape if what == "step" else f"{what} {shape}", leave=not patience,
            )  # fmt: skip

    def update(self, step: int, row: Mapping[str, float]) -> None:
        """Called after optimizer step `step` (1-based) with its metric row, empty if not logged."""
        if not self.enabled:
            return
        try:
            self._show(step, row)
        except OSError:  # the terminal was closed
            self.enabled = False

    def _show(self, step: int, row: Mapping[str, float]) -> None:
        now = time.monotonic()
        eta, self._row = self._eta(step, now), row or self._row
        text = " ".join(filter(None, [describe(self._row), f"ETA {eta}"]))
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(step - self._bar.n)
            if step >= self.total:
                self.close()
        elif self._due(step, now):
            print(f"{self._what} {step}/{self.total} {text}", file=sys.stderr, flush=True)
            self._last_line = now
        self._last_step = step

    def _eta(self, step: int, now: float) -> str:
        # The first step pays for warm-up (kernels, allocator, data workers): judge by the others.
        if self._first is None:
            self._first = (step, now)
            seconds = (now - self._start) / max(1, step - self._start_step)
        else:
            seconds = (now - self._first[1]) / max(1, step - self._first[0])
        return clock(seconds * max(0, self.total - step))

    def _due(self, step: int, now: float) -> bool:
        first, ends = self._last_line == float("-inf"), step >= self.total
        if first and self._patience:
            return now - self._start >= self._patience and not ends
        if first or ends:
            return True
        silence = now - self._last_line
        part, last = (s * LINES_PER_RUN // self.total for s in (step, self._last_step))
        return silence >= LONGEST_SILENCE or (part > last and silence >= LINE_SECONDS)

    def close(self) -> None:
        """Leaves the bar as it stands and gives the line back."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        self.enabled = False


def _has_screen() -> bool:
    """Whether stderr is a terminal that someone may look at: one of no size shows no bar."""
    if not sys.stderr.isatty():
        return False
    try:
        return min(os.get_terminal_size(sys.stderr.fileno())) > 1
    except (OSError, ValueError):  # it stands for a terminal, and has no file
        return True


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return "IPKernelApp" in getattr(shell, "config", {})


def describe(row: Mapping[str, float]) -> str:
    """`loss 1.234 mrl 0.98 ... lr 1.8e-04 12,345 tok/s pad 21% mem 1.2 GiB`: what the row has."""
    parts = [key for key in row if key.startswith("loss/") and "@" not in key]
    shows = [("loss", "loss {:.4g}"), *((key, key[5:] + " {:.3g}") for key in parts)]
    shows += [("lr", "lr {:.1e}"), ("tokens_per_second", "{:,.0f} tok/s")]
    shows += [("padding_share", "pad {:.0%}"), ("memory_gib", "mem {:.1f} GiB")]
    return " ".join(form.format(row[key]) for key, form in shows if row.get(key) is not None)


def clock(seconds: float) -> str:
    """65 -> 1:05, 3725 -> 1:02:05."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
