"""Batches made ahead in a thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def prefetch(
    make: Callable[[Item], Made], items: Iterable[Item], depth: int = 2
) -> Generator[Made, None, None]:
    """make(item) for items, made ahead in one background thread: `depth` are ready while the next
    is made.

    What make or items raise is raised at the step it belongs to. Closing the generator stops the
    thread, also in the middle of the items: use it in `contextlib.closing`.
    make must draw no random numbers from a global generator: it runs ahead of the training step.
    """
    source, end = iter(items), object()

    def one() -> Any:
        item = next(source, end)
        return end if item is end else make(item)  # type: ignore[arg-type]

    pool = ThreadPoolExecutor(1, "prefetch")
    try:
        ahead = deque(pool.submit(one) for _ in range(depth + 1))
        while (made := ahead.popleft().result()) is not end:
            ahead.append(pool.submit(one))
            yield made
    finally:
        pool.shutdown(cancel_futures=True)
