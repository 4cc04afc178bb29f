"""Collectives of two real ranks whose process group serves host and device tensors apart.

No machine of ours in CI has two GPUs, so a stand-in takes their place: the device is `meta` (shapes
without values), its backend torch's `fake`, and, as under NCCL, a group of that backend alone has
no one who takes a tensor of the host.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ranks import run_ranks

NOBODY = "No backend type associated with device type cpu"


def work(group: str, answers: str) -> None:
    """One rank: what each call gives, or the error that it raises."""
    from torch.testing._internal.distributed import fake_pg  # noqa: F401  (registers `fake`)

    from mipic_llm.runtime import engine, ranks
    from mipic_llm.runtime.saving import Saver
    from mipic_llm.training.run import LiveRun

    engine.BACKENDS["cpu"] = group
    engine.start()
    rank = ranks.rank()
    run: Any = SimpleNamespace(failure=None, stop_reason=None, saver=Saver(), saving=None)
    run.finish = lambda: LiveRun.finish(run)

    def gathered() -> list:
        """(2, 3) and (1, 3) device rows of the two ranks, and the gradient of one's own."""
        x_Nd = torch.zeros(2 - rank, 3, device="meta", requires_grad=True)
        out = ranks.gather_rows(x_Nd, (2, 1))
        out.sum().backward()
        assert x_Nd.grad is not None and x_Nd.grad.is_meta
        return [list(out.shape), list(x_Nd.grad.shape)]

    calls = {
        "plain torch": lambda: torch.distributed.all_reduce(torch.ones(1)),
        "loss parts": lambda: ranks.mean_over_ranks(torch.tensor([1.0 + rank, 4.0])).tolist(),
        "stop flag": lambda: LiveRun.settle(run, signalled=rank == 1)[1],
        "device": lambda: ranks.mean_over_ranks(torch.ones(2, device="meta")).device.type,
        "counts": lambda: ranks.all_counts(10 * rank, 7),
        "objects": lambda: ranks.gather_objects({"rank": rank}, aside=True),
        "first": lambda: ranks.from_first(f"from {rank}"),
        "barrier": ranks.barrier,
        "here": ranks.ranks_here,
        "gather": gathered,
    }
    found = {}
    for name, call in calls.items():
        try:
            found[name] = call()
        except RuntimeError as error:
            found[name] = f"RuntimeError: {error}"
    Path(answers, f"{rank}.json").write_text(json.dumps(found))


@pytest.mark.parametrize("group", ["cpu:gloo,meta:fake", "meta:fake"])
def test_host_and_device_tensors_go_over_what_serves_them(group: str, tmp_path) -> None:
    """Also where the group serves the device alone, as it was when no run on two GPUs could end its
    first step: the loss parts and the stop flag then met no backend."""
    code, output = run_ranks(2, Path(__file__), [group, str(tmp_path)])
    assert code == 0, output[-4000:]
    for rank in (0, 1):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        plain = found.pop("plain torch")
        assert plain is None if "gloo" in group else NOBODY in plain  # the stand-in does refuse
        assert found == {
            "loss parts": [1.5, 4.0],
            "stop flag": True,
            "device": "meta",
            "counts": [[0, 10], [7, 7]],
            "objects": [{"rank": 0}, {"rank": 1}],
            "first": "from 0",
            "barrier": None,
            "here": 2,
            "gather": [[3, 3], [2 - rank, 3]],
        }


def test_a_gpu_gets_both_backends() -> None:
    from mipic_llm.runtime.engine import BACKENDS

    served = torch.distributed.distributed_c10d.BackendConfig(BACKENDS["cuda"])
    assert served.get_device_backend_map() == {"cpu": "gloo", "cuda": "nccl"}


if __name__ == "__main__":
    work(*sys.argv[1:])
