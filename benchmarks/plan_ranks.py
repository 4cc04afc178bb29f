"""What plan_check.py measures on real ranks: bytes alive, and bytes sent, in a step.

Started by plan_check.py on every rank (`plan_ranks.py CASES ANSWERS`, two JSON files).
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from torch import nn  # noqa: E402

WORLD = 2


class Traffic:
    """Bytes that this rank sends by a ring, from the collectives that are called."""

    def __init__(self) -> None:
        self.sent, self.by_name = 0.0, {}
        import torch.distributed as dist

        for name in ("all_reduce", "reduce"):
            self._wrap(dist, name, 0, 2.0 if name == "all_reduce" else 1.0)
        for name in ("all_gather_into_tensor", "_all_gather_base", "all_gather"):
            self._wrap(dist, name, 0, 1.0)
        for name in ("reduce_scatter_tensor", "_reduce_scatter_base", "reduce_scatter"):
            self._wrap(dist, name, 1, 1.0)

    def _wrap(self, dist, name: str, which: int, factor: float) -> None:
        inner = getattr(dist, name)

        def counted(*args, **kwargs):
            found = args[which] if len(args) > which else next(iter(kwargs.values()))
            parts = found if isinstance(found, (list, tuple)) else [found]
            size = sum(t.numel() * t.element_size() for t in parts)
            sent = factor * size * (WORLD - 1) / WORLD
            self.sent += sent
            self.by_name[name] = self.by_name.get(name, 0.0) + sent
            return inner(*args, **kwargs)

        setattr(dist, name, counted)


def live_bytes(module: nn.Module | None) -> dict[int, int]:
    """Storages of all tensors that Python can reach, and of gradients."""
    gc.collect()
    found = [o for o in gc.get_objects() if isinstance(o, torch.Tensor)]
    for p in module.parameters() if module is not None else ():
        found += [t for t in (p.grad, getattr(p, "ds_tensor", None)) if t is not None]
    out = {}
    for tensor in found:
        if tensor.device.type == "cpu" and tensor.layout == torch.strided:
            storage = tensor.untyped_storage()
            out[storage.data_ptr()] = storage.nbytes()
    return out


def worker(cases: Path, answers: Path) -> None:
    """On every rank: two steps of each case. Written: bytes alive before the second update, bytes
    sent during the second step."""
    traffic = Traffic()
    from mipic_llm.config import load_config
    from mipic_llm.data.batch import build_step
    from mipic_llm.runtime import ranks as dist
    from mipic_llm.runtime.engine import Engine
    from mipic_llm.runtime.start import start
    from mipic_llm.training import setup
    from mipic_llm.training.step import StepRunner

    start()
    torch.set_num_threads(1)
    seen: dict[str, int] = {}
    update = Engine.step

    def step(self) -> float:
        now = live_bytes(self.module)
        seen["states"] = sum(n for ptr, n in now.items() if ptr not in seen["before"])
        return update(self)

    def last_gradient(module):
        now = live_bytes(module)
        seen["peak"] = sum(n for ptr, n in now.items() if ptr not in seen["before"])

    Engine.step = step
    found = {}
    for case in json.loads(cases.read_text()):
        seen["before"] = live_bytes(None)
        config, source, data = setup.open_run(load_config(case["args"]))
        engine = setup.open_engine(config, source, data, 10)
        runner = StepRunner(engine, config)
        engine.train(True)
        first = next(p for p in engine.module.parameters() if p.requires_grad)
        first.register_post_accumulate_grad_hook(lambda _, m=engine.module: last_gradient(m))
        for i in range(2):
            rows = data.plan.local(data.plan.batch(0, i), dist.rank())
            examples = [data.sources[s].examples[k] for s, k in rows]
            made = build_step(examples, data.encoder)
            traffic.sent, traffic.by_name = 0.0, {}
            runner.run(made, i)
        found[case["name"]] = {"states": seen["states"], "peak": seen["peak"],
                               "sent": traffic.sent, "by_name": dict(traffic.by_name)}  # fmt: skip
        del engine, runner, data
    if dist.rank() == 0:
        answers.write_text(json.dumps(found))


if __name__ == "__main__":
    worker(Path(sys.argv[1]), Path(sys.argv[2]))
