"""MIC's parts inside texts against loops in float64; padded, packed and in chunks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mipic_llm.config import load_config, resolve
from mipic_llm.objective.mic import MicTokens
from mipic_llm.objective.term import Inside
from mipic_llm.types import Packing

D, DIMS, LENGTHS = 10, (2, 7), (5, 1, 9, 3, *(4 + n % 3 for n in range(20)))


def term() -> MicTokens:
    argv = ["--objective.name", "mic", "--objective.dims", "2,7,10", "--mic.layers", "1,2",
            "--mic.threshold", "0.3"]  # fmt: skip
    config = resolve(load_config(argv), width=D, n_layers=3)
    return MicTokens(config, D, 3, config.mic.weight)


def naive(texts: dict[int, list[Tensor]]) -> Tensor:
    """(cross, floor) by the formulas, summed over texts, the mean over layers and dims."""
    cross, floor = [], []
    for many in texts.values():
        for h in many:
            s = (((h - h.mean(0)) ** 2).mean(0) + 1e-4).sqrt()
            z = (h - h.mean(0)) / s
            for d in DIMS:
                over = [((z[:, a] * z[:, b]).mean().abs() - 0.3).clamp_min(0) ** 2
                        for a in range(d) for b in range(d, D)]  # fmt: skip
                cross.append(torch.stack(over).mean())
                low = (1 - s).clamp_min(0)
                floor.append(low[:d].mean() + low[d:].mean() / 2)
    return torch.stack([torch.stack(x).sum() / len(texts) / len(DIMS) for x in (cross, floor)])


def padded(texts: list[Tensor]) -> tuple[Tensor, Tensor]:
    tokens = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True, padding_value=7.0)
    lengths = torch.tensor([len(t) for t in texts])
    return tokens, torch.arange(tokens.shape[1]) < lengths[:, None]


@pytest.mark.parametrize("form", ["padded", "packed", "chunks"])
def test_value_and_gradient(form: str) -> None:
    torch.manual_seed(1)
    texts = {layer: [torch.randn(n, D, dtype=torch.float64) * 0.9 for n in LENGTHS]
             for layer in (1, 2)}  # fmt: skip
    leaves = [h.requires_grad_() for many in texts.values() for h in many]
    want, mic = naive(texts), term()
    if form == "packed":
        ends = torch.tensor([0, *LENGTHS]).cumsum(0).int()
        mask = Packing(ends, torch.arange(int(ends[-1])), LENGTHS)
        insides = [Inside({}, {k: torch.cat(v) for k, v in texts.items()}, mask)]
    else:
        cuts = [slice(0, 7), slice(7, None)] if form == "chunks" else [slice(None)]
        insides = []
        for cut in cuts:
            made = {k: padded(v[cut]) for k, v in texts.items()}
            insides.append(Inside({}, {k: t for k, (t, _) in made.items()}, made[1][1]))
    have = sum(torch.stack(mic.per_example(one, ())) for one in insides)
    torch.testing.assert_close(have, want, rtol=1e-12, atol=1e-12)
    assert want.min() > 1
    weights = torch.tensor([1.0, 3.0])
    wanted = torch.autograd.grad(want @ weights.double(), leaves)
    found = torch.autograd.grad(have @ weights.double(), leaves)
    for w, f in zip(wanted, found, strict=True):
        torch.testing.assert_close(f, w, rtol=1e-10, atol=1e-12)


def test_the_middle_third_of_the_layers() -> None:
    for depth, layers in ((1, [1]), (3, [2]), (6, [3, 4]), (12, [5, 6, 7, 8])):
        argv = ["--objective.name", "mic", "--pic.ladder", "none", "--sia.layers", "none"]
        config = resolve(load_config(argv), width=384, n_layers=depth)
        assert config.mic.layers == layers
