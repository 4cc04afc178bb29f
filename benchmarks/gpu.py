"""Suite `gpu`: all of it on one GPU (targets: H200), shapes of Qwen3-0.6B and BGE-M3, bf16, ZeRO-1.

Random weights, loaded and trained through the product's path (`model.attn auto`, so packed where
a varlen kernel is). Device events for time, `max_memory_allocated` for memory, MFU from flops.py on
real tokens. Without a GPU the same code runs on tiny shapes: a dry run, without verdicts.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import data, flops, gradcache, harness, models, peers, results, scaling, sia
from benchmarks.harness import Options
from benchmarks.results import Row

RANK = 16
ZERO1 = str(harness.ROOT / "ds_configs" / "zero1.json")
MFU_TARGET = 0.45  # then 0.55


class Case(NamedTuple):
    """B anchors; T 0: triplets with lengths drawn from lengths.csv, else pairs of T tokens."""

    shape: str
    mode: str
    terms: str
    B: int
    T: int = 0
    checkpointing: bool = False

    @property
    def name(self) -> str:
        lengths = f"{2 * self.B}x{self.T}" if self.T else f"{self.B} drawn triplets"
        return f"{self.shape} {self.mode} {lengths}" + (" ckpt" if self.checkpointing else "")


# 640 triplets have about 33k tokens.
CASES = [
    Case(shape, mode, terms, B, T, checkpointing)
    for shape in ("qwen3-0.6b", "bge-m3")
    for mode in ("lora", "full")
    for B, T, checkpointing in ((640, 0, False), (640, 0, True), (32, 512, False))
    for terms in ("mrl", "mipic")
]
DRY = [Case(shape, mode, "mipic", 6)
       for shape in ("tiny-qwen3", "tiny-xlmr") for mode in ("lora", "full")]  # fmt: skip
PAIRS = [(Case("qwen3-0.6b", "lora", "", 128, 64), 1.03),
         (Case("qwen3-0.6b", "lora", "", 32, 512), 1.06)]  # fmt: skip
DRY_PAIRS = [(Case("tiny-qwen3", "lora", "", 4, 12), 0.0)]


def stepper(
    case: Case, terms: str, path: Path | None = None, own: Sequence[str] = (),
    precision: str = "bf16",
) -> tuple[models.Stepper, list[int]]:  # fmt: skip
    """The case ready to step, and the real lengths of its batch. path: of its model, which is else
    written for the moment. own: more flags, the last word."""
    shape = flops.SHAPES[case.shape]
    more = ["--train.gradient_checkpointing", str(case.checkpointing).lower(),
            "--model.append_eos", "none", *own]  # fmt: skip
    arguments = models.flags(terms=terms, precision=precision, B=case.B, more=more,
                             lora_rank=RANK if case.mode == "lora" else 0)  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = path or models.write_model(shape, Path(folder), "bf16")
        made = models.trainee(str(path), arguments, ZERO1)
    lengths = data.full(case.B, case.T) if case.T else data.draw(case.B)
    tokenizer = made.source.tokenizer
    batch = data.step_batch(lengths, shape.vocab, side=tokenizer.padding_side,
                            pad=tokenizer.pad_token_id)  # fmt: skip
    return models.Stepper(made, [batch]), [n for column in lengths for n in column]


def throughput(case: list[Any], runs: int, warmup: int) -> list[dict[str, Any]]:
    """Two timings of one case (each version twice), with MFU and peak memory."""
    from mipic_llm.runtime.start import start

    start()
    c = Case(*case)
    step, lengths = stepper(c, c.terms)
    samples = harness.paired({"": step}, warmup, runs)[""]
    work = flops.step_flops(flops.SHAPES[c.shape], lengths, checkpointing=c.checkpointing,
                            lora_rank=RANK if c.mode == "lora" else 0)  # fmt: skip
    peak = flops.peak_of(harness.machine()) if harness.on_gpu() else None
    kernel = step.made.runner.engine.module.backbone.model.config._attn_implementation
    found = []
    for half in harness.halves(samples):
        t = harness.summary(half)
        found.append({
            "timing": list(t), "tokens_per_s": 1e3 * sum(lengths) / t.median,
            "padding_share": step.share, "peak_mib": harness.peak_mib(),
            "mfu": work / (t.median / 1e3) / peak if peak else None,
            "note": f"attention {kernel}, {sum(lengths)} tokens per step",
        })  # fmt: skip
    return found


def ratio(case: list[Any], runs: int, warmup: int) -> dict[str, Any]:
    """MIPIC over MRL in turn, on one batch."""
    from mipic_llm.runtime.start import start

    start()
    c = Case(*case)
    steps = {terms: stepper(c, terms)[0] for terms in ("mrl", "mipic")}
    samples = harness.paired(steps, warmup, runs)
    halves = zip(*(harness.halves(samples[n]) for n in steps), strict=True)
    return {"ratios": [harness.ratio_of(b, a) for a, b in halves],
            "timings": {n: list(harness.summary(s)) for n, s in samples.items()}}  # fmt: skip


def _common(case: Case, dry: bool) -> dict[str, Any]:
    return {"model": case.shape, "mode": case.mode, "zero_stage": 1, "ranks": 1, "B": case.B,
            "lengths": str(case.T or "lengths.csv"), "note": "dry run" if dry else ""}  # fmt: skip


def _throughput_rows(o: Options, dry: bool) -> list[Row]:
    rows = []
    for case in DRY if dry else CASES:
        common = _common(case, dry) | {"terms": case.terms}
        run_it = harness.call if dry else harness.in_child
        try:
            found = run_it("benchmarks.gpu:throughput", case=list(case),
                           runs=2 if dry else o.runs or 30, warmup=1 if dry else 5)  # fmt: skip
        except RuntimeError as error:
            if "OutOfMemoryError" not in str(error):
                raise
            rows.append(results.row("gpu", case.name, case.terms,
                                    **common | {"note": "out of memory"}))  # fmt: skip
            continue
        for got in found:
            judged: dict[str, object] = {}
            if got["mfu"] is not None and not case.T and case.shape == "qwen3-0.6b":
                judged = results.verdict(got["mfu"], MFU_TARGET, at_least=True)
            note = "; ".join(n for n in (common["note"], got.pop("note")) if n)
            timing = harness.Timing(*got.pop("timing"))
            rows.append(results.row("gpu", case.name, case.terms, timing,
                                    **common | got | {"note": note} | judged))  # fmt: skip
    return rows


def _ratio_rows(o: Options, dry: bool) -> list[Row]:
    rows = []
    for case, limit in DRY_PAIRS if dry else PAIRS:
        run_it = harness.call if dry else harness.in_child
        got = run_it("benchmarks.gpu:ratio", case=list(case), runs=2 if dry else o.runs or 30,
                     warmup=1 if dry else 5)  # fmt: skip
        for value in got["ratios"]:
            judged = {"ratio": value} if dry else results.verdict(value, limit, at_least=False)
            timing = harness.Timing(*got["timings"]["mipic"])
            rows.append(results.row("gpu", f"step {case.name}", "mipic over mrl", timing,
                                    terms="mipic", **_common(case, dry), **judged))  # fmt: skip
    return rows


def _peer_rows(o: Options, dry: bool, folder: Path) -> list[Row]:
    """sentence-transformers in its own bf16 (autocast) on random BGE-M3 weights, drawn lengths."""
    from mipic_llm.runtime.start import start

    start()
    shape = flops.TINY_XLMR if dry else flops.BGE_M3
    path = models.write_model(shape, folder / shape.name)
    flags = ["--objective.name", "mrl", "--model.pooling", "mean"]
    cases = [peers.Case("peers B=256", 256, 0, None, 5, 30, {"ours mrl": flags}),
             peers.Case("peers cached B=1024 chunk 64", 1024, 64, None, 2, 6,
                        {"ours mrl": [*flags, "--train.chunk_size", "64"]})]  # fmt: skip
    if dry:
        cases = [peers.Case("peers B=8", 8, 0, None, 0, 2, {"ours mrl": flags})]
    rows = []
    for case in cases:
        given = data.word_triplets(case.B * 4, shape.vocab), "lengths.csv"
        rows += peers.bench(case, o, str(path), precision="fp32" if dry else "bf16", suite="gpu",
                            model=shape.name, given=given)  # fmt: skip
    return rows


def _rest(o: Options, dry: bool, folder: Path) -> list[Row]:
    """sia, scaling and gradcache on this device."""
    rows = [r | {"suite": "gpu", "case": f"sia {r['case']}"} for r in sia.run(o)]
    base = scaling.Point("tiny-qwen3", 4, 12) if dry else scaling.Point("qwen3-0.6b", 64, 64)
    rows += [r | {"case": f"scaling {r['case']}"}
             for r in scaling.run(o, "gpu", base, precision="bf16", lora_rank=RANK,
                              ds_config=ZERO1)]  # fmt: skip
    if not dry:  # a process per batch size; the suite gradcache runs the same code on a CPU
        path = models.write_model(flops.BGE_M3, folder / "bge-m3-bf16", "bf16")
        rows += [r | {"case": f"gradcache {r['case']}"}
                 for r in gradcache.run(o, "gpu", str(path), "bf16")]  # fmt: skip
    return rows


def run(o: Options) -> list[Row]:
    dry = not harness.on_gpu()
    if dry:
        print("gpu: no GPU here, so this is a DRY RUN on tiny shapes: its times mean nothing")
        o = o._replace(quick=True)
    rows = _throughput_rows(o, dry) + _ratio_rows(o, dry)
    with tempfile.TemporaryDirectory() as name:
        rows += _peer_rows(o, dry, Path(name)) + _rest(o, dry, Path(name))
    if not dry:
        return rows
    marked = []
    for r in rows:
        notes = [str(r.get("note") or "")] if "dry run" in str(r.get("note")) else []
        marked.append(r | {"note": "; ".join(notes or ["dry run"]), "target": "", "met": ""})
    return marked
