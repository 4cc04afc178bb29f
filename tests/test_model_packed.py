"""The module on packed sequences against itself on padded ones: BERT, XLM-R, Qwen3, in float64."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from tiny_models import tiny_bert, tiny_qwen3, tiny_xlmr
from transformers import AutoModel

from mipic_llm.config import load_config, resolve
from mipic_llm.data.tokenise import pack, pad
from mipic_llm.errors import UserError
from mipic_llm.model import varlen
from mipic_llm.model.backbone import Backbone
from mipic_llm.objective import EmbeddingModule, build_objective
from mipic_llm.runtime.batches import check_batches

KINDS = {  # builder, pooling, pad id
    "bert": (tiny_bert, "mean", 0),
    "xlmr": (tiny_xlmr, "cls", 1),
    "qwen3": (tiny_qwen3, "last", 0),
}
LENGTHS = (23, 12, 12, 12, 7, 3, 1)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {kind: make(folder / kind) for kind, (make, *_) in KINDS.items()}


def rows(seed: int = 0) -> list[list[int]]:
    g = torch.Generator().manual_seed(seed)
    return [torch.randint(5, 200, (n,), generator=g).tolist() for n in LENGTHS]


def module(models, kind: str, attn: str, *, again: bool = False, dropout: float = 0.0, **options):
    torch.manual_seed(0)
    drops = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    if kind == "qwen3":
        drops = {"attention_dropout": dropout}
    model = AutoModel.from_pretrained(
        models[kind], attn_implementation=attn, dtype=torch.float64, **drops
    )
    if again:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    pooling = options.pop("pooling", KINDS[kind][1])
    flags = ["--objective.dims", "8,16,32", "--sia.layers", "1,2,4", "--sia.ratios", "0.3,0.6",
             "--pic.ladder", "8@1,16@2,32@4", "--sia.temperature", "1", "--sia.min_k", "2",
             "--sia.detach_teacher", "false", "--sia.lift_init", "prefix", "--pic.head", "mlp",
             "--pic.widths", "point", "--pic.target", "next"]  # fmt: skip
    objective = build_objective(
        resolve(load_config(flags), width=32, n_layers=4), width=32, depth=4
    )
    return EmbeddingModule(Backbone(model, pooling=pooling, **options), objective).double().train()


def run(net, ids, mask):
    """Readouts, chain, SIA, and every parameter's gradient of a scalar of them all."""
    out = net(ids, mask, net.objective.draw(0), 10.0)
    parts = list(out.outputs)
    g = torch.Generator().manual_seed(1)
    total = out.local + sum(
        (p * torch.randn(p.shape, generator=g, dtype=p.dtype)).sum() for p in parts
    )
    net.zero_grad()
    total.backward()
    grads = {k: p.grad for k, p in net.named_parameters() if p.grad is not None}
    return [*parts, out.sums], grads


def same(one, two, tolerance=1e-9):
    for a, b in zip(one[0], two[0], strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
    assert one[1].keys() == two[1].keys() and len(one[1]) > 20
    for key, grad in two[1].items():
        torch.testing.assert_close(one[1][key], grad, rtol=tolerance, atol=tolerance)
    assert max(g.abs().max() for g in two[1].values()) > 0.1


@pytest.mark.parametrize("inner_norm", ["raw", "final"])
@pytest.mark.parametrize("again", [False, True], ids=["plain", "ckpt"])
@pytest.mark.parametrize("kind", KINDS)
def test_packed_equals_padded(models, kind, again, inner_norm):
    padded = module(models, kind, "sdpa", inner_norm=inner_norm)
    packed = module(models, kind, "varlen", again=again, inner_norm=inner_norm)
    assert packed.backbone.packed and not padded.backbone.packed
    want = run(padded, *pad(rows(), KINDS[kind][2], "right"))
    same(run(packed, *pack(rows())), want)


@pytest.mark.parametrize("pooling", ["cls", "mean", "last"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_pooling_and_any_order(models, kind, pooling):
    padded = module(models, kind, "sdpa", pooling=pooling)
    packed = module(models, kind, "varlen", pooling=pooling)
    mixed = [rows()[i] for i in (4, 1, 6, 0, 2, 5, 3)]
    want = run(padded, *pad(mixed, KINDS[kind][2], "right"))
    same(run(packed, *pack(mixed)), want)


def test_left_padding_is_packed_too(models):
    """Its positions are shifted, in rotary tables of float32: the same to that precision only."""
    want = run(module(models, "qwen3", "sdpa"), *pad(rows(), 0, "left"))
    got = run(module(models, "qwen3", "varlen"), *pack(rows()))
    for a, b in zip([*got[0], *got[1].values()], [*want[0], *want[1].values()], strict=True):
        assert (a - b).norm() <= 1e-5 * b.norm() + 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_a_padded_batch_is_stripped_of_its_pads(models, kind):
    packed = module(models, kind, "varlen")
    ids, mask = pad(rows(), KINDS[kind][2], "right")
    same(run(packed, ids, mask), run(packed, *pack(rows())))


@pytest.mark.parametrize("kind", KINDS)
def test_no_sequence_sees_another(models, kind):
    """Bit for bit: other tokens in one sequence change nothing in the others."""
    net = module(models, kind, "varlen").eval()
    texts = rows()
    changed = [list(row) for row in texts]
    changed[2] = [i + 1 for i in texts[2]]
    layers = (1, 2, 3, 4)
    with torch.no_grad():
        one, two = (net(*pack(t), layers=layers) for t in (texts, changed))
    others = [s for s in range(len(texts)) if s != 2]
    assert torch.equal(one[:, others], two[:, others])
    assert (one[:, 2] - two[:, 2]).abs().max() > 1e-3


def test_sliding_windows(tmp_path):
    """A Qwen3 with windowed layers sees the same keys packed as padded."""
    from transformers import Qwen3Config, Qwen3Model

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=300, hidden_size=32, num_hidden_layers=4, num_attention_heads=4, head_dim=8,
        num_key_value_heads=2, intermediate_size=64, use_sliding_window=True, sliding_window=4,
        max_window_layers=2, initializer_range=0.2,
    )  # fmt: skip
    assert config.layer_types == ["full_attention"] * 2 + ["sliding_attention"] * 2
    Qwen3Model(config).save_pretrained(tmp_path)
    place = {"qwen3": tmp_path}
    want = run(module(place, "qwen3", "sdpa"), *pad(rows(), 0, "right"))
    got = run(module(place, "qwen3", "varlen"), *pack(rows()))
    same(got, want)
    config.layer_types = ["full_attention"] * 4
    config.save_pretrained(tmp_path)
    whole = run(module(place, "qwen3", "varlen"), *pack(rows()))
    assert (whole[0][0] - got[0][0]).abs().max() > 1e-3, "the window must matter here"


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_and_view_noise_make_views(models, kind):
    noisy = module(models, kind, "varlen", view_noise=0.2)
    dropping = module(models, kind, "varlen", dropout=0.3)
    batch = pack([rows()[0], rows()[0]])
    for net in (noisy, dropping):
        z = net.backbone(*batch, [4], []).readout_LSD[0]
        assert (z[0] - z[1]).abs().max() > 1e-3
        z = net.eval().backbone(*batch, [4], []).readout_LSD[0]
        torch.testing.assert_close(z[0], z[1])


def test_dropout_is_replayed_by_checkpointing(models):
    plain = module(models, "bert", "varlen", dropout=0.3)
    again = module(models, "bert", "varlen", dropout=0.3, again=True)
    found = []
    for net in (plain, again):
        torch.manual_seed(5)
        found.append(run(net, *pack(rows())))
    same(*found)


class Bare:
    """An engine without DeepSpeed."""

    device = torch.device("cpu")

    def __init__(self, net):
        self.module = net

    def forward(self, *args, **options):
        return self.module(*args, **options)

    def train(self, mode=True):
        self.module.train(mode)


@pytest.mark.parametrize("kind", KINDS)
def test_the_check_before_a_run_passes(models, kind):
    net = module(models, kind, "varlen")
    check_batches(Bare(net), net.backbone.model.config)
    assert net.training and not net.backbone.own_positions


@pytest.mark.parametrize("fault", ["leak", "positions"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_check_before_a_run_finds_faults(models, kind, fault, monkeypatch):
    net = module(models, kind, "varlen")
    if fault == "leak":
        real = varlen.reference_varlen
        monkeypatch.setattr(
            varlen, "reference_varlen",
            lambda q, k, v, lengths, **o: real(q, k, v, [sum(lengths)], **o),
        )  # fmt: skip
    elif kind == "qwen3":  # rotary: only differences of positions matter
        monkeypatch.setattr(
            "mipic_llm.model.backbone.keywords",
            lambda p, *a: varlen.keywords(p._replace(position_N=3 * p.position_N), *a),
        )
    else:
        net.backbone.first_position += 1
    with pytest.raises(UserError, match="packing changes .*--model.attn sdpa"):
        check_batches(Bare(net), net.backbone.model.config)


def test_pads_that_change_a_vector_are_told(models, capsys):
    """FNet and ConvBERT are such classes; the tiny model becomes one when no mask reaches it."""
    net = module(models, "bert", "sdpa")
    check_batches(Bare(net), net.backbone.model.config)
    assert not capsys.readouterr().out
    whole = net.backbone.model.forward
    net.backbone.model.forward = lambda attention_mask, **o: whole(**o)
    check_batches(Bare(net), net.backbone.model.config)
    assert "note: the pads of a batch change the vectors of BertModel" in capsys.readouterr().out


def test_a_class_that_wants_a_mask_is_refused_packed(models):
    net = module(models, "bert", "varlen")
    net.backbone.model.forward = lambda **o: o["attention_mask"]
    with pytest.raises(UserError, match="BertModel does not run packed .*--model.attn sdpa"):
        check_batches(Bare(net), net.backbone.model.config)


@pytest.mark.parametrize("config, refused", [
    ({"layer_types": ["full_attention", "chunked_attention"]}, True),  # Llama 4
    ({"sliding_window": 8}, True),  # PhiMoE
    ({"layer_types": ["chunked_attention", "full_attention"], "sliding_window": 8}, False),
    ({"sliding_window": None}, False),
])  # fmt: skip
def test_a_window_that_only_the_mask_has_is_refused(config, refused):
    layer = torch.nn.Module()
    layer.config, layer.layer_idx = SimpleNamespace(**config), 1
    q = torch.randn(1, 2, 6, 8)
    cu = torch.tensor([0, 2, 6])
    words = "Module uses a window of which its attention is not told; use --model.attn sdpa"
    with pytest.raises(UserError, match=words) if refused else nullcontext():
        varlen.varlen(layer, q, q, q, None, cu_seq_lens_q=cu, max_length_q=4)
