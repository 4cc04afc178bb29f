"""The plan's formulas against measurement: `python benchmarks/plan_check.py` (CPU).

Real classes on this CPU. Counts: parameters (meta device, every shape of the table), FLOPs
(torch's counter on a forward and backward pass), activations (what autograd saves, each storage
once). Ranks: bytes of weights, gradients, optimizer and buckets just before the optimizer's step,
and bytes sent by a rank in a step, of the quickstart's model on two gloo ranks at ZeRO-0 to 3.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import torch  # noqa: E402
from torch import nn  # noqa: E402

from benchmarks.plan_models import (  # noqa: E402
    RANK,
    TEXTS,
    TOKENS,
    batch,
    build,
    small_configs,
    work_for,
)
from benchmarks.plan_ranks import WORLD  # noqa: E402
from mipic_llm.plan import formulas  # noqa: E402
from mipic_llm.plan.shapes import SHAPES, from_config  # noqa: E402


class Case(NamedTuple):
    """One comparison; error is prediction / measured - 1."""

    what: str
    case: str
    predicted: float
    measured: float

    @property
    def error(self) -> float:
        """Relative."""
        return self.predicted / self.measured - 1 if self.measured else 0.0


def check_parameters() -> list[Case]:
    from transformers import AutoModel, BertConfig, Qwen3Config, XLMRobertaConfig

    rows = []
    for name, s in SHAPES.items():
        if s.decoder:
            config = Qwen3Config(
                vocab_size=s.vocab, hidden_size=s.width, num_hidden_layers=s.layers,
                num_attention_heads=s.heads, num_key_value_heads=s.kv // 128, head_dim=128,
                intermediate_size=s.inner,
            )  # fmt: skip
        else:
            kind, types = (XLMRobertaConfig, 1) if s.vocab > 200_000 else (BertConfig, 2)
            config = kind(
                vocab_size=s.vocab, hidden_size=s.width, num_hidden_layers=s.layers,
                num_attention_heads=s.heads, intermediate_size=s.inner, type_vocab_size=types,
                max_position_embeddings=s.embeddings - s.vocab - types,
            )  # fmt: skip
        options = {} if s.decoder else {"add_pooling_layer": False}
        with torch.device("meta"):
            model = AutoModel.from_config(config, **options)
        measured = sum(p.numel() for p in model.parameters())
        rows.append(Case("parameters", name, s.parameters, measured))
    return rows


def count_flops(model: nn.Module, cached: bool) -> float:
    """Forward and backward, per token; cached: one forward without graph before."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        if cached:
            with torch.no_grad():
                model(**batch())
        model(**batch()).last_hidden_state.float().pow(2).sum().backward()
    return counter.get_total_flops() / (TEXTS * TOKENS)


def check_flops() -> list[Case]:
    rows = []
    for name, config in small_configs().items():
        shape = from_config(config)
        for lora, again, cached in (
            (0, 0, 0), (0, 1, 0), (0, 0, 1), (RANK, 0, 0), (RANK, 1, 0), (RANK, 1, 1)
        ):  # fmt: skip
            model = build(config, lora, "eager", again=bool(again))
            work = work_for(shape, lora, formulas.EAGER, 4, bool(again), bool(cached))
            label = f"{name} {'LoRA' if lora else 'full'}{' checkpointing' * again}"
            rows.append(Case("FLOPs per token", label + " GradCache" * cached,
                             formulas.flops_per_token(work, TOKENS),
                             count_flops(model, bool(cached))))  # fmt: skip
    return rows


def saved_bytes(model: nn.Module) -> float:
    """Bytes that autograd keeps of a forward pass, weights aside, each storage once, per token."""
    tensors = [*model.parameters(), *model.buffers()]
    own = {t.untyped_storage().data_ptr() for t in tensors}
    seen: dict[int, int] = {}
    alive = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)  # so that no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = model(**batch()).last_hidden_state
    del out
    return sum(seen.values()) / (TEXTS * TOKENS)


def check_activations() -> list[Case]:
    rows = []
    for name, config in small_configs().items():
        shape = from_config(config)
        for dtype, size in ((torch.float32, 4), (torch.bfloat16, 2)):
            for lora in (0, RANK):
                model = build(config, lora, "sdpa", dtype)
                work = work_for(shape, lora, formulas.FUSED, size, False)
                label = f"{name} {'LoRA' if lora else 'full'} {'fp32' if size == 4 else 'bf16'}"
                rows.append(Case("activation bytes per token", label,
                                 formulas.activation_bytes(work), saved_bytes(model)))  # fmt: skip
        model = build(config, 0, "sdpa", again=True)
        work = work_for(shape, 0, formulas.FUSED, 4, True)
        rows.append(Case("activation bytes per token", f"{name} full fp32 checkpointing",
                         formulas.activation_bytes(work), saved_bytes(model)))  # fmt: skip
    return rows


# ------------------------------------------------------------------------------- on real ranks


def rank_cases() -> list[dict]:
    wanted = [(precision, lora, stage, 0) for precision, lora in (("fp32", 0), ("bf16", 16))
              for stage in range(4)]  # fmt: skip
    rows = []
    for precision, lora, stage, chunk in [*wanted, ("fp32", 0, 2, 4), ("fp32", 0, 3, 4)]:
        args = ["--recipe", "quickstart", "--data.validation", "none", "--lora.rank", str(lora),
                "--train.precision", precision, "--train.batch_size", "4", "--train.chunk_size",
                str(chunk), "--train.length_groups", "false", "--ds_config",
                str(ROOT / "ds_configs" / f"zero{stage}.json")]  # fmt: skip
        name = f"MiniLM {'LoRA' if lora else 'full'} {precision} ZeRO-{stage} x{WORLD}"
        rows.append({"name": name + (f" chunk {chunk}" if chunk else ""), "args": args})
    return rows


def check_ranks(only: str = "") -> list[Case]:
    from ranks import run_ranks

    from mipic_llm.config import load_config
    from mipic_llm.plan.advise import stages
    from mipic_llm.plan.loads import load_of, works_of

    with tempfile.TemporaryDirectory() as folder:
        cases, answers = Path(folder, "cases.json"), Path(folder, "answers.json")
        wanted = [case for case in rank_cases() if only in case["name"]]
        cases.write_text(json.dumps(wanted))
        code, output = run_ranks(
            WORLD, ROOT / "benchmarks" / "plan_ranks.py", [str(cases), str(answers)], 1800
        )
        if code:
            raise SystemExit(output[-4000:])
        found = json.loads(answers.read_text())
    rows = []
    for case in wanted:
        ((config, work),) = works_of(load_config(case["args"]), SHAPES["quickstart"])
        work = work._replace(cached="chunk" in case["name"])
        zeros, stage = stages(config.ds_config, work.shape.width)
        load = load_of(config, 16.0, work.shape.width, work.shape.layers)
        measured = found[case["name"]]
        states = formulas.states(work, zeros[stage or 0], WORLD)
        sent = formulas.wire(
            work,
            zeros[stage or 0],
            WORLD,
            load.passes,
            load.pairs,
            load.columns,
            load.links,
            load.gathered,
            load.taught,
        )
        at_rest = states.weights + states.gradients + states.optimizer
        for what, predicted, key in (
            ("MB of states", at_rest, "states"),
            ("MB at the end of backward", sum(states), "peak"),
            ("MB sent per step", sum(sent), "sent"),
        ):
            rows.append(Case(what, case["name"], predicted / 1e6, measured[key] / 1e6))
        if os.environ.get("PLAN_CHECK_DETAILS"):
            print(case["name"], states, sent, measured["by_name"], sep="\n  ")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("parameters", "flops", "activations", "ranks"))
    parser.add_argument("--case", default="", help="only cases on ranks whose name has this text")
    args = parser.parse_args()
    checks = {"parameters": check_parameters, "flops": check_flops,
              "activations": check_activations,
              "ranks": lambda: check_ranks(args.case)}  # fmt: skip
    print(f"{'figure':28}{'case':50}{'plan':>15}{'measured':>15}{'error':>8}")
    for name, check in checks.items():
        for row in check() if args.only in (None, name) else ():
            print(f"{row.what:28}{row.case:50}{row.predicted:15,.2f}{row.measured:15,.2f}"
                  f"{row.error:8.1%}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
