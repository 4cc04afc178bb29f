"""Run by `ranks.run_ranks` on every rank: trains with each list of flags in turn, in one process,
without an export.

argv: a JSON file of [flags, the step that ends the run early or null].
"""

import json
import sys
from pathlib import Path

from ranks import set_apart

from mipic_llm.config import load_config
from mipic_llm.runtime.start import start
from mipic_llm.training import loop


class Stop:
    def __init__(self, last: int | None) -> None:
        self.last = last

    def on_step(self, run, step, row):
        return step == self.last


if __name__ == "__main__":
    start()
    loop.export = loop.report = lambda *_: None
    for flags, last in json.loads(Path(sys.argv[1]).read_text()):
        set_apart()
        assert loop.train(load_config(flags), [Stop(last)]) == 0
