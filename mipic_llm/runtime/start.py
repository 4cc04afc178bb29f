"""DeepSpeed imported without its noise, and the ranks of its launcher joined."""

from __future__ import annotations

import atexit
import logging
import os
import sys

import torch

from mipic_llm import launched
from mipic_llm.errors import UserError, one_line
from mipic_llm.runtime.ranks import leave
from mipic_llm.runtime.watch import watch

logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # what it would find, with a warning


# Its autotuner would import mlflow, and half of PyPI with it, for which training has no use.
_hidden = sys.modules.setdefault("mlflow", None) is None  # type: ignore[arg-type]
import deepspeed  # noqa: E402  (its logger must be quiet before it speaks)

if _hidden:
    del sys.modules["mlflow"]
# An op for its inference only, compiled at the first start on a CPU. Without it no compiler is
# needed, and a start killed while compiling leaves no lock on which later ones wait for ever.
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False

# What serves the tensors of each device in the process group: nccl alone would refuse host tensors.
BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl"}


def start() -> torch.device:
    """Join the ranks of the launcher (deepspeed, torchrun), or be the only one. -> this device.

    Raises UserError for an environment in which ranks cannot meet, and where they do not: the port
    is taken, a rank is missing.
    """
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    launched.check(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", launched.number("LOCAL_RANK"))
        torch.cuda.set_device(device)
    backend = BACKENDS[device.type]
    if not torch.distributed.is_initialized() and launched.world_size() == 1:
        # One rank needs no port, so any number of such runs share a machine; and without a launcher
        # no rank is left in the environment of children.
        os.environ["LOCAL_RANK"] = str(launched.number("LOCAL_RANK"))  # DeepSpeed insists
        for name in ("RANK", "WORLD_SIZE"):  # which it reads where they are empty, too
            if not os.environ.get(name):
                os.environ.pop(name, None)
        store = torch.distributed.HashStore()
        torch.distributed.init_process_group(backend, store=store, rank=0, world_size=1)
    try:
        deepspeed.init_distributed(backend, verbose=False)
    except torch.distributed.DistError as error:
        port = os.environ.get("MASTER_PORT")
        raise UserError(
            f"port {port} is taken, perhaps by another run on this machine; give the launcher a "
            "free one: deepspeed --master_port N" if "EADDRINUSE" in str(error) else
            f"the {launched.world_size()} ranks did not meet at {os.environ.get('MASTER_ADDR')}, "
            f"port {port}: {one_line(error)}; look whether all were started and reach that place"
        ) from error  # fmt: skip
    watch()
    return device


atexit.register(leave)
