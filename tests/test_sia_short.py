"""The Triton kernels of SIA for short texts, in Triton's interpreter (sia_short_worker.py), and
who gets them. Package triton: see test_short_attention.py.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from test_short_attention import pytestmark, python  # noqa: F401
from tiny_models import few, tiny_bert

from mipic_llm import losses
from mipic_llm.config import load_config, resolve
from mipic_llm.errors import UserError, kernel_fault
from mipic_llm.losses.sia import api, choice
from mipic_llm.objective.sia import Sia
from mipic_llm.objective.term import Inside
from mipic_llm.training import loop

WORKER = Path(__file__).with_name("sia_short_worker.py")


def test_kernels_equal_sia_in_float64() -> None:
    found = json.loads(python(str(WORKER)).splitlines()[-1])
    assert found.pop("right") == [None, None]
    assert found.pop("wrong") == "they differ from plain products"
    assert len(found) == 16
    for case, difference in found.items():
        limit = 1e-2 if case == "bf16" else 2e-5 if case == "offset" else 3e-6
        assert difference < limit, (case, difference)


def test_gradients_have_no_wgmma() -> None:
    """Compiled for an H100 or H200 without one, the largest tile: see `kernels.gradients`."""
    code = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from mipic_llm.losses.sia import kernels, launches

numbers = {n: "i32" for n in "at S N D K P bands".split()} | {"tau": "fp32", "scale": "fp32"}
types = {"LAYERS": "*i64", "DLAYERS": "*i64", "LIKE": "*bf16", "FIRST": "*i64", "MASK": "*i64"}
types |= {n: "*i32" for n in "SENTENCE SETS EDGE AT WIDE".split()} | numbers
for teacher in (True, False):
    const = dict(STUDENT_FIRST=True, RELATED=True, SHAPED=True, TEACHER=teacher, PADDED=False,
                 ALIGN=16, HINT=16, M=launches.TILES[-1], C=launches.COLUMNS)
    names = kernels.gradients.arg_names
    signature = {n: "constexpr" if n in const else types.get(n, "*fp32") for n in names}
    source = ASTSource(fn=kernels.gradients, signature=signature, constexprs=const)
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32),
                          options={"num_warps": launches.WARPS_BACK[launches.TILES[-1]]})
    assert "mma.sync" in made.asm["ptx"] and "wgmma" not in made.asm["ptx"]
"""
    python("-c", code, TRITON_INTERPRET="0")


def test_long_texts_and_other_types_go_the_other_way() -> None:
    code = """
import torch
from mipic_llm.losses.sia.function import SiaOptions
from mipic_llm.losses.sia.short import long_texts, takes
assert long_texts((70, 40, 65, 30, 64), None) == 3  # up to the last long one
assert long_texts((64, 3), None) == 0
assert long_texts(None, torch.ones(5, 64)) == 0 and long_texts(None, torch.ones(5, 65)) == 5

def kind(*dtypes, dims=(4,), long=0):
    query, lifted, *tokens = (torch.zeros(1, 2, 8, dtype=t) for t in dtypes)
    o = SiaOptions(dims, (0.5,) * len(dims), 1.0, 8, True, True, True, True)
    return takes(o, query, lifted, [t[0] for t in tokens], long)

half, full = torch.bfloat16, torch.float32
assert kind(full, full, half) and kind(half, full, half, half) and kind(full, full, full)
assert not kind(full, torch.float64, half) and not kind(full, full, half, full)
assert kind(full, full, full, dims=tuple(range(1, 16)))
assert not kind(full, full, full, dims=tuple(range(1, 17)))
assert kind(full, full, full, long=1) and not kind(full, full, full, long=2)
"""
    python("-c", code)


def test_a_broken_gpu_is_told_with_the_flag_that_does_without() -> None:
    said = kernel_fault(RuntimeError("no  ptxas\nhere"), "--sia.kernels false")
    assert said == "RuntimeError: no ptxas here"
    with pytest.raises(UserError, match="illegal memory.*start again with --sia.kernels false"):
        kernel_fault(RuntimeError("CUDA error: an illegal memory access"), "--sia.kernels false")


@pytest.mark.parametrize("kernels", [True, False])
def test_kernels_can_be_left_out(monkeypatch: pytest.MonkeyPatch, kernels: bool) -> None:
    asked: list[object] = []
    monkeypatch.setattr(api, "short_kernels", lambda *where: asked.append(where))
    monkeypatch.setattr(losses, "sia_about", lambda *where: "not in kernels: CUDA error: illegal")
    config = load_config(["--sia.kernels", str(kernels), "--objective.dims", "16", "64"])
    term = Sia(resolve(config, width=64, n_layers=6), 64, 6, 1.0)
    layer, mask = term.layers[0], torch.ones(2, 3, dtype=torch.bool)
    inside = Inside({layer: torch.rand(2, 64)}, {layer: torch.rand(2, 3, 64)}, mask)
    term.per_example(inside, (0,))
    assert len(asked) == kernels
    if kernels:
        with pytest.raises(UserError, match="start again with --sia.kernels false"):
            term.about(torch.device("cuda"), torch.bfloat16)
    else:
        assert term.about(torch.device("cuda"), torch.bfloat16) == ""


def test_kernels_are_tried_before_any_step(monkeypatch, tmp_path) -> None:
    """The check of chunks is a step: a GPU that is broken there would end in a traceback."""
    monkeypatch.setattr(losses, "sia_about", lambda *where: "not in kernels: CUDA error: illegal")
    monkeypatch.setattr(loop, "check_chunks", lambda run: pytest.fail("a step was made"))
    flags = ["--model.name", str(tiny_bert(tmp_path / "m")), "--data.train", str(few(tmp_path)),
             "--objective.dims", "8", "32", "--train.chunk_size", "4", "--data.validation", "none",
             "--train.batch_size", "4", "--export.rehearse", "false", "--tracking.mlflow", "off",
             "--train.max_steps", "1", "--output_dir", str(tmp_path / "out")]  # fmt: skip
    with pytest.raises(UserError, match="start again with --sia.kernels false"):
        loop.train(load_config(flags))


def test_a_cpu_has_none_and_says_nothing() -> None:
    here = torch.device("cpu")
    assert choice.short_kernels(here, torch.float32) is None
    assert choice.sia_about(here, torch.float32) == ""


@pytest.mark.parametrize(
    "answer, line",
    [((None, "why"), "short texts not in Triton kernels: why"),
     ((object(), ""), "short texts in Triton kernels"), ((None, ""), "")],
)  # fmt: skip
def test_the_user_is_told(monkeypatch: pytest.MonkeyPatch, answer: tuple, line: str) -> None:
    monkeypatch.setattr(choice, "_asked", lambda device, dtype: answer)
    assert choice.sia_about(torch.device("cuda"), torch.bfloat16) == line
