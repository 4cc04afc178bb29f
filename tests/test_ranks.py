"""Collectives of two real ranks whose process group serves host and device tensors apart.

No machine of ours in CI has two GPUs, so a stand-in takes their place: the device is `meta` (shapes
without values), its backend torch's `fake`, and, as under NCCL, a group of that backend alone has
no one who takes a tensor of the host.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ranks import run_ranks

NOBODY = "No backend type associated with device type cpu"


def wait(answers: str) -> None:
    """One rank: rank 0 is busy on the host for longer than a collective of a device may take."""
    from datetime import timedelta

    from mipic_llm.runtime import ranks

    torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=1))
    rank, found = ranks.rank(), {}
    ranks.barrier()
    time.sleep(0 if rank else 3)
    found["host"] = [ranks.from_first(f"from {rank}"), ranks.all_counts(rank)]
    time.sleep(0 if rank else 3)
    try:
        torch.distributed.barrier()
        found["plain torch"] = None
    except RuntimeError as error:
        found["plain torch"] = str(error)
    Path(answers, f"{rank}.json").write_text(json.dumps(found))
    os._exit(0)  # a group that is out of time cannot be left


def share(answers: str) -> None:
    """One rank: what a tensor that ranks share costs it and holds, and a full disk."""
    import tempfile

    from mipic_llm.errors import UserError
    from mipic_llm.runtime import ranks, shared, start
    from mipic_llm.runtime.shared import Shared

    def anonymous() -> int:  # KiB of this process that no file stands for
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(x for x in lines if x.startswith("RssAnon")).split()[1])

    start.start()
    rank, n = ranks.rank(), 200_000
    empty, small = Shared(2, 0, 3), Shared(2, 5, 3)
    small.tensor[:, [[0, 3], [4, 1, 2]][rank]] = float(rank + 1)
    small.complete([[0, 3], [4, 1, 2]])
    before = anonymous()
    big = Shared(2, n, 32)  # 51 MB
    own = torch.arange(rank, n, 2)
    for part in own.split(10_000):
        big.tensor[:, part] = part[None, :, None].float()
    big.complete([list(range(r, n, 2)) for r in range(2)])
    right = all(bool((part == torch.arange(n)[:, None]).all()) for part in big.tensor)
    grown, left = anonymous() - before, sorted(Path(tempfile.gettempdir()).glob("mipic-*"))

    def full(*_):
        raise OSError(28, "No space left on device")

    if rank == 0:
        shared.allocate = full
    try:
        Shared(2, 5, 3)
        told = ""
    except UserError as error:
        told = str(error)
    Path(answers, f"{rank}.json").write_text(json.dumps({
        "small": small.tensor[:, :, 0].tolist(), "empty": list(empty.tensor.shape),
        "big": right, "grown": grown, "told": told,
        "left": [str(p) for p in left],
    }))  # fmt: skip


def work(group: str, answers: str) -> None:
    """One rank: what each call gives, or the error that it raises."""
    from torch.testing._internal.distributed import fake_pg  # noqa: F401  (registers `fake`)

    from mipic_llm.runtime import ranks, start
    from mipic_llm.runtime.saving import Saver
    from mipic_llm.training.run import LiveRun

    start.BACKENDS["cpu"] = group
    start.start()
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
    from mipic_llm.runtime.start import BACKENDS

    served = torch.distributed.distributed_c10d.BackendConfig(BACKENDS["cuda"])
    assert served.get_device_backend_map() == {"cpu": "gloo", "cuda": "nccl"}


def test_ranks_wait_on_the_host_for_one_that_works_long(tmp_path) -> None:
    """As for one that writes an export of 8B weights: longer than a collective may take."""
    code, output = run_ranks(2, Path(__file__), ["wait", str(tmp_path)])
    assert code == 0, output[-4000:]
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert all(f["host"] == ["from 0", [[0, 1]]] for f in found)
    assert any(f["plain torch"] for f in found), "the stand-in for a device has no limit"


@pytest.mark.parametrize(("machines", "system"), [(1, "Linux"), (2, "Linux"), (1, "macOS")])
def test_ranks_of_a_machine_share_one_tensor(machines: int, system: str, tmp_path) -> None:
    """Two directories for temporary files are two machines. macOS has no posix_fallocate."""
    script = tmp_path / "worker.py"
    script.write_text(
        "import os, runpy, sys, tempfile\n"
        f"os.environ['TMPDIR'] = r'{tmp_path}/' + str(int(os.environ['RANK']) % {machines})\n"
        "tempfile.tempdir = None\n"
        + "del os.posix_fallocate\n"
        * (system == "macOS")
        + f"sys.argv[0] = r'{__file__}'\n"
        f"runpy.run_path(r'{__file__}', run_name='__main__')\n"
    )
    for name in "01":
        (tmp_path / name).mkdir()
    code, output = run_ranks(2, script, ["share", str(tmp_path)])
    assert code == 0, output[-4000:]
    for rank in (0, 1):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert found["small"] == 2 * [[1, 2, 2, 1, 2]]
        assert found["empty"] == [2, 0, 3] and found["big"] and found["left"] == []
        assert found["told"].startswith(f"{tmp_path}/0: cannot hold 0.00 GiB of vectors")
        assert "No space left on device; name a directory with room" in found["told"]
        if machines == 1:  # none of its 51,200 KiB is a process's own
            assert found["grown"] < 25_000, found["grown"]


if __name__ == "__main__":
    kinds = {"wait": wait, "share": share}
    if sys.argv[1] in kinds:
        kinds[sys.argv[1]](sys.argv[2])
    else:
        work(*sys.argv[1:])


def test_a_letter_that_the_output_cannot_show_ends_nothing(monkeypatch) -> None:
    """Of a column or a path that is no text, or on a terminal of another encoding."""
    from mipic_llm.runtime.ranks import say

    for code in ("utf-8", "ascii"):
        made = io.TextIOWrapper(io.BytesIO(), encoding=code)
        monkeypatch.setattr(sys, "stdout", made)
        say("a boat \xe9 \udce9")
        made.seek(0)
        assert made.read() == ("a boat \xe9" if code == "utf-8" else "a boat \\xe9") + " \\udce9\n"
