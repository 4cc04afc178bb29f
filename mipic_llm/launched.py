"""What a launcher says of this process, in the environment.

A process of one rank may stand below a job of several (a pod of Kubernetes, a shell of mpirun), and
have a RANK of that job: it is the first all the same.
"""

from __future__ import annotations

import os

from mipic_llm.errors import UserError

NEEDED = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
LEFT = "start with torchrun or deepspeed, or unset WORLD_SIZE where another job left it"
_MPI = "OMPI_COMM_WORLD_LOCAL_RANK"


def number(name: str, without: int = 0) -> int:
    """A number of 0 or more; `without` where it is absent or empty. UserError for what is none."""
    text = os.environ.get(name) or str(without)
    if not (text.isascii() and text.isdigit()):
        raise UserError(f"environment {name}: {text!r} is no number of a rank; {LEFT}")
    return int(text)


def world_size() -> int:
    return number("WORLD_SIZE", 1)


def first() -> bool:
    """Whether this is the first of all ranks, before they are joined."""
    return world_size() == 1 or number("RANK") == 0


def first_here() -> bool:
    """Whether this is the first rank of its machine."""
    return world_size() == 1 or number("LOCAL_RANK") == 0


def check(gpus: int) -> None:
    """UserError for an environment in which ranks cannot meet; gpus: of this machine, for it. What
    lacks here DeepSpeed would ask MPI for."""
    world, lacks = world_size(), [name for name in NEEDED if not os.environ.get(name)]
    if world != 1 and lacks:
        raise UserError(f"environment: WORLD_SIZE is {world}, and {', '.join(lacks)} "
                        f"{'is' if len(lacks) == 1 else 'are'} not set; {LEFT}")  # fmt: skip
    if world != 1 and number("RANK") >= world:
        raise UserError(f"environment: RANK is {number('RANK')}, and WORLD_SIZE {world}; {LEFT}")
    here = number("LOCAL_RANK")
    if gpus and here >= gpus:
        raise UserError(
            f"environment: LOCAL_RANK is {here}, and this machine shows {gpus} GPU(s); start as "
            "many ranks as it has (torchrun --nproc-per-node, deepspeed --num_gpus), and look at "
            "CUDA_VISIBLE_DEVICES"
        )
    if number(_MPI, here) != here:
        raise UserError(
            f"environment: LOCAL_RANK is {here}, and {_MPI}, of mpirun, {os.environ[_MPI]}; unset "
            f"{_MPI}, or set WORLD_SIZE, {', '.join(NEEDED)} for each of its processes"
        )
