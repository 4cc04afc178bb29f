"""One rank of a training whose callback acts on rank 1 only: argv = what it does, then flags."""

import sys

from mipic_llm.config import load_config
from mipic_llm.training.callbacks import Callback
from mipic_llm.training.loop import train


class OnlyRankOne(Callback):
    def on_step(self, run, step, row):
        if run.rank == 1 and step == 2:
            if sys.argv[1] == "raise":
                raise ValueError("too hot")
            return "stop"

    def on_end(self, run, status):
        print(f"rank {run.rank} ended at step {run.step}: {status}", flush=True)


if __name__ == "__main__":
    raise SystemExit(train(load_config(sys.argv[2:]), [OnlyRankOne()]))
