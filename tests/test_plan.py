"""`mipic plan`: its formulas against real classes and the published limits; its use.

Expected values of hand-made cases are derived in the comments.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_models import tiny_bert, tiny_qwen3, tiny_xlmr
from transformers import AutoModel, LlamaConfig, Qwen2Config

from mipic_llm.commands.plan import main
from mipic_llm.commands.run import run_main
from mipic_llm.config import load_config, resolve
from mipic_llm.errors import UserError
from mipic_llm.model.directory import open_source
from mipic_llm.model.load import load_model
from mipic_llm.plan import formulas
from mipic_llm.plan.advise import (
    Setting,
    advise,
    from_section,
    largest_chunk,
    lowest_that_fits,
    stages,
)
from mipic_llm.plan.formulas import Work, Zero
from mipic_llm.plan.loads import Load, heads_of, load_of, works_of
from mipic_llm.plan.predict import GIB, Machine, predict, readouts
from mipic_llm.plan.shapes import SHAPES, find_shape, from_config

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks import plan_check  # noqa: E402

H200 = Machine("h200", 790e12, 139 * GIB, 4.3e12)


def work(name: str, lora: int = 0, again: bool = False, **more) -> Work:
    """Without heads: PERFORMANCE's table speaks of the backbone alone."""
    shape = SHAPES[name]
    linears = tuple(shape.linears().values()) if lora else ()
    return Work(shape, lora, linears, 0, again, False, 2, **more)


# ------------------------------------------------------------------------ against real classes


def test_parameters_are_exact():
    for row in plan_check.check_parameters():
        assert row.predicted == row.measured, row


@pytest.mark.parametrize("make", [tiny_bert, tiny_xlmr, tiny_qwen3])
def test_a_directory_is_read(make, tmp_path):
    shape, origin = find_shape(str(make(tmp_path / "model")))
    real = AutoModel.from_pretrained(tmp_path / "model")
    pooler = sum(p.numel() for n, p in real.named_parameters() if n.startswith("pooler."))
    assert shape.parameters == sum(p.numel() for p in real.parameters()) - pooler
    assert origin.endswith("config.json")


@pytest.mark.parametrize("config", [
    Qwen2Config(vocab_size=90, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                num_key_value_heads=2, intermediate_size=48),
    LlamaConfig(vocab_size=90, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                num_key_value_heads=2, intermediate_size=48, attention_bias=True, mlp_bias=True),
], ids=["qwen2", "llama with biases"])  # fmt: skip
def test_kin_of_the_table(config):
    shape = from_config(config)
    model = AutoModel.from_config(config)
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    wrapped = plan_check.build(config, 3, "eager")
    adapter = sum(p.numel() for n, p in wrapped.named_parameters() if "lora_" in n)
    linears = tuple(shape.lora_linears(["all-linear"]).values())
    assert Work(shape, 3, linears, 0, False, False, 4).lora_parameters == adapter > 0


def test_flops_agree_with_torch_s_counter():
    rows = plan_check.check_flops()
    assert len(rows) == 18
    for row in rows:  # LoRA's first layer needs no gradient of its input: the plan counts it
        assert -1e-9 <= row.error < (0.05 if "LoRA" in row.case or "qwen3" in row.case else 1e-9)


def test_activations_agree_with_what_autograd_saves():
    rows = plan_check.check_activations()
    assert len(rows) == 15
    for row in rows:  # token ids, cos and sin are not counted: much of so narrow a checkpoint
        assert abs(row.error) < (0.12 if "checkpointing" in row.case else 0.02), row


def test_head_parameters_are_those_of_the_module():
    from mipic_llm.objective import build_objective

    for preset in ("paper", "balanced"):
        c = load_config(["--objective.dims", "16,32,64", "--sia.layers", "2,4", "--pic.ladder",
                         "16@1,32@2,64@4", "--objective.preset", preset])  # fmt: skip
        c = resolve(c, width=64, n_layers=4)
        heads = build_objective(c, width=64, depth=4).heads()
        found = sum(p.numel() for each in heads.values() for p in each.parameters())
        assert heads.keys() == {"lifts", "phis"}
        assert sum(n for _, n in heads_of(c, 64)) == found > 0


# ----------------------------------------------------------------- against PERFORMANCE's limits


@pytest.mark.parametrize("name, full, lora, states, none, checkpointed", [
    ("Qwen/Qwen3-Embedding-0.6B", 153e3, 214e3, 8.9, 2.0e6, 57e3),
    ("Qwen/Qwen3-Embedding-4B", 19.5e3, 28.5e3, 59.9, 6.1e6, 184e3),
    ("Qwen/Qwen3-Embedding-8B", 10.3e3, 15.2e3, 112.8, 7.8e6, 295e3),
    ("BAAI/bge-m3", 219e3, 305e3, 8.4, None, 49e3),
])  # fmt: skip
def test_the_published_limits(name, full, lora, states, none, checkpointed):
    w = work(name)
    assert 0.55 * 790e12 / formulas.flops_per_token(w, 512) == pytest.approx(full, rel=0.015)
    thin = work(name, 16)
    assert 0.55 * 790e12 / formulas.flops_per_token(thin, 512) == pytest.approx(lora, rel=0.015)
    assert sum(formulas.states(w, Zero(1), 1)) / GIB == pytest.approx(states, rel=0.02)
    if none:
        assert formulas.activation_bytes(w) == pytest.approx(none, rel=0.03)
    again = w._replace(checkpointing=True)
    assert formulas.activation_bytes(again) == pytest.approx(checkpointed, rel=0.12)


@pytest.mark.parametrize("objective, mib", [("mrl", 37_149), ("mipic", 37_891)])
def test_memory_measured_on_an_h200(objective, mib):
    """Qwen3-0.6B's shape, LoRA 16, 1,920 texts of 17.41 tokens packed, ZeRO-1:
    benchmarks/gpu_rows.jsonl, commit 4db0cad."""
    flags = ["--recipe", "qwen3-0.6b", "--objective.name", objective, "--lora.rank", "16"]
    flags += ["--train.batch_size", "640", "--data.negatives", "1", "--train.precision", "bf16"]
    shape = SHAPES["Qwen/Qwen3-Embedding-0.6B"]
    ((config, w),) = works_of(load_config(flags), shape)
    assert w.nodes
    load = load_of(config, 17.41, shape.width, shape.layers)
    row = predict(w, load, Zero(1), 1, H200, 4e11, 0.55)
    assert (row.total - 2**30) / 2**20 == pytest.approx(mib, rel=0.04)


def test_states_by_stage():
    w = work("Qwen/Qwen3-Embedding-0.6B")
    p = w.parameters
    four = [formulas.states(w, Zero(s), 4) for s in range(4)]
    assert [s.weights for s in four] == [2 * p, 2 * p, 2 * p, p / 2]
    assert [s.gradients for s in four] == [2 * p, p / 2, p / 2, p / 2]
    assert [s.optimizer for s in four] == [12 * p, 3 * p, 3 * p, 3 * p]
    sixteen = formulas.states(w, Zero(1), 1)  # 2 + 2 + 12 bytes
    assert sum(sixteen) == 16 * p
    thin = work("Qwen/Qwen3-Embedding-0.6B", 16)
    assert sum(formulas.states(thin, Zero(1), 1)) == 2 * p + 16 * thin.trainable


def test_what_lies_in_memory_besides_under_zero():
    """Buckets and gathered weights; float32; GradCache at ZeRO-1; offloading."""
    w = work("Qwen/Qwen3-Embedding-0.6B")
    p, layer = w.parameters, w.shape.layer_parameters
    three = Zero(3, bucket=1000, prefetch=500, reuse=6 * layer)
    found = formulas.states(w, three, 4)
    # 2 bytes each: half the reuse distance, the layer at work and what is fetched ahead
    assert found.gathered == 2 * (3 * layer + layer + 500)
    assert formulas.states(w, three._replace(live=layer), 4).gathered == 2 * (2 * layer + 500)
    assert formulas.states(w, three._replace(reuse=10 * p), 4).gathered == 2 * p  # all of them
    assert [formulas.states(w, Zero(s, bucket=1000), 4).buckets for s in range(4)] == [
        2000, 4000, 4000, 4000]  # fmt: skip
    assert formulas.states(work("Qwen/Qwen3-Embedding-0.6B", 16), Zero(1), 4).buckets < 4 * 50e6
    alone = formulas.states(w, three, 1)
    assert alone.buckets == alone.gathered == 0
    exact = w._replace(bytes=4)  # fp32: a copy of the weights from ZeRO-1 on
    assert formulas.states(exact, Zero(0), 4)[:3] == (4 * p, 4 * p, 8 * p)
    assert formulas.states(exact, Zero(1), 4)[:3] == (4 * p, p, 3 * p)
    cached = w._replace(cached=True)  # gradients of all chunks, whole
    assert [formulas.states(cached, Zero(s), 4).gradients for s in (1, 2)] == [2 * p, p / 2]
    for stage, gradients in ((2, p / 2), (3, 0)):
        off = formulas.states(w, Zero(stage, offload_optimizer=True), 4)
        assert (off.gradients, off.optimizer) == (gradients, 0) and off.weights > 0
    none = formulas.states(w, Zero(3, offload_param=True), 1)
    assert none.weights == 0 and none.gathered > 0


@pytest.mark.parametrize("make", [tiny_bert, tiny_qwen3])
def test_a_base_in_four_bits_is_counted_as_it_lies_in_memory(make, tmp_path, capsys):
    base = str(make(tmp_path / "base"))
    flags = ["--model.name", base, "--model.quantization", "nf4", "--train.precision", "bf16"]
    config = load_config(flags)
    real = load_model(open_source(config.model), config.model, precision="bf16", dropout=0.0)
    held = sum(p.numel() * p.element_size() for p in real.parameters())
    kept = [p.quant_state for p in real.parameters() if hasattr(p, "quant_state")]
    scales = sum(q.absmax.numel() + 4 * q.state2.absmax.numel() for q in kept)
    assert len(kept) == 4 * len(from_config(real.config).linears())
    ((_, w),) = works_of(config, find_shape(base)[0])
    found = formulas.states(w._replace(lora_linears=(), heads=0), Zero(0), 1)
    assert found.weights == pytest.approx(held + scales, rel=0.01)
    three = formulas.states(w._replace(lora_linears=(), heads=0), Zero(3), 4)
    assert three.weights == pytest.approx(held / 4 + scales, rel=0.01)
    less, more = (formulas.wire(x, Zero(3), 4, 8, 16, 3, 0).weights
                  for x in (w, w._replace(four_bits=False)))  # fmt: skip
    # 8 passes gather all matrices twice, 2 bytes a weight or 1/2, from 3 of 4 ranks.
    assert more - less == pytest.approx(8 * 2 * 1.5 * 0.75 * w.shape.weights)
    assert main([*flags, "--ranks", "2"]) == 0
    assert "LoRA 16 on a base in 4 bits, bf16" in capsys.readouterr().out


def test_bytes_on_the_wire():
    w = work("Qwen/Qwen3-Embedding-0.6B")
    p, d = w.parameters, 1024

    def weights(w: Work, zero: Zero) -> float:
        return formulas.wire(w, zero, 4, 3, 8, 2, 0).weights

    assert weights(w, Zero(0)) == 4 * p * 3 / 4  # 4 P f
    for stage in (1, 2):  # an all-reduce of 4 P f and a gather of 2 P f; or a reduce
        assert weights(w, Zero(stage)) == 6 * p * 3 / 4
        assert weights(w, Zero(stage, all_reduce=False)) == 4 * p * 3 / 4
    nothing_kept = Zero(3, reuse=0)
    cached = w._replace(cached=True)
    assert weights(w, nothing_kept) == (4 * 3 * p + 2 * p) * 3 / 4  # 4 m P f + 2 P f
    assert weights(cached, nothing_kept) == (6 * 3 * p + 2 * p) * 3 / 4
    all_kept = Zero(3, reuse=10 * p, live=10 * p)
    assert formulas.wire(w, all_kept, 4, 1, 8, 2, 0).weights == (2 * p + 2 * p) * 3 / 4
    # 8 pairs, 3 other ranks, two columns: gathered (4 B) and reduced (4 B); two links with
    # two columns of targets each (4 B)
    assert formulas.wire(w, Zero(0), 4, 1, 8, 2, 2).readouts == 8 * 3 * d * (2 * 8 + 4 * 2 * 2)
    assert sum(formulas.wire(w, Zero(3), 1, 3, 8, 2, 2)) == 0
    one_pass = Zero(3, reuse=p)  # half of the weights stay between forward and backward
    assert formulas.wire(w, one_pass, 4, 1, 8, 2, 0).weights == (2 * 1.5 * p + 2 * p) * 3 / 4
    # a further layer's readouts are gathered and reduced too, a teacher's 100 channels gathered
    more = formulas.wire(w, Zero(0), 4, 1, 8, 2, 0, gathered=1, taught=100).readouts
    assert more == 8 * 3 * 2 * (d * 2 * 8 + 4 * 100)


# ------------------------------------------------------------------------------- the predictions


def plan_of(*argv: str) -> tuple[Work, Load]:
    config = load_config(list(argv))
    shape = SHAPES[config.model.name]
    ((config, w),) = works_of(config, shape)
    return w, load_of(config, 50.0, shape.width, shape.layers)


def test_chunks_bound_memory_whatever_the_batch():
    zero, totals, speeds = Zero(1), [], []
    for batch in (64, 1024):
        w, load = plan_of("--recipe", "qwen3-0.6b", "--train.chunk_size", "32",
                          "--train.batch_size", str(batch))  # fmt: skip
        row = predict(w, load, zero, 8, H200, 4e11, 0.55)
        totals.append(row.activations)
        speeds.append(row.speed)
    assert totals[0] == totals[1]
    w, load = plan_of("--recipe", "qwen3-0.6b", "--train.batch_size", "1024")
    plain = predict(w, load, zero, 8, H200, 4e11, 0.55)
    assert plain.activations > 5 * totals[1]
    assert plain.speed > 1.2 * speeds[1]  # one forward less


def test_a_step_s_time_and_readouts_by_hand():
    """8 ranks of 6 texts each, of 50 tokens, in two passes; everything else in round numbers."""
    w = work("Qwen/Qwen3-Embedding-0.6B")._replace(cached=True, checkpointing=True)
    load = Load(6, 50.0, 100, chunk=3, pairs=2, columns=3, links=1, relation=True, memory=10,
                gathered=1, taught=100, maps=2, square=True)  # fmt: skip
    assert (load.passes, load.peak_tokens) == (2, 300)  # of a chunk all may be of full length
    assert (load._replace(chunk=4).passes, load._replace(chunk=0).peak_tokens) == (2, 300)
    machine, d = Machine("m", 1e15, 80 * GIB, 1e12), 1024
    row = predict(w, load, Zero(1), 8, machine, 1e11, 0.5)
    assert row.compute == pytest.approx(300 * formulas.flops_per_token(w, 50) / 5e14)
    assert row.optimizer == pytest.approx(28 * w.trainable / 8 / 1e12)
    assert row.fabric == pytest.approx(sum(row.wire) / 1e11)
    # Not overlapped: the gather after the update (a third of the weights' bytes), the readouts.
    late = (row.wire.weights / 3 + row.wire.readouts) / 1e11
    busy = max(row.compute, row.launches, row.fabric - late)
    assert row.step == pytest.approx(busy + row.optimizer + late)
    assert row.speed == pytest.approx(8 * 300 / row.step)
    # Two layers whose tokens SIA reads and three of MIC's: made three times, with GradCache four.
    terms = w._replace(tokens_layers=5, mic_layers=3, dims=(16, 32))
    sia = 2 * (2 * d + 2 * 48 + 2 * 0.49 * 50 * d)
    assert formulas.token_flops(terms, 50) == pytest.approx(sia + 8 * d * d)
    more = predict(terms, load, Zero(1), 8, machine, 1e11, 0.5).compute - row.compute
    assert more == pytest.approx(300 * 4 * (sia + 8 * d * d) / 5e14)
    # 32 ranks of 1,024 pairs with two texts each: rows in tiles of 2**24 similarities
    tiled, none = (readouts(w, load._replace(pairs=n), 32) for n in (1024, 0))
    assert tiled - none == 12 * 2**24
    slow = predict(w, load, Zero(1), 8, machine, 1e6, 0.5)
    assert slow.bound == "fabric" and slow.step == pytest.approx(slow.fabric + slow.optimizer)
    plain = predict(w._replace(checkpointing=False), load._replace(chunk=0), Zero(1), 8, machine,
                    1e11, 0.5)  # fmt: skip
    assert row.launches == pytest.approx(2 * plain.launches * (1 + 2 / 3))  # passes; forwards
    # fp32 readouts of two layers and their gradients; those of two layers and a link of all ranks;
    # 3 matrices of 2 pairs by 32 candidates, 4 of the relation (6 by 58), 3 of all 48 texts; the
    # memory, twice; the teacher's vectors, and two maps of 6 texts.
    own, every = 8 * 6 * d * 2, 8 * 8 * 6 * d * 3
    matrices = 12 * 2 * 32 + 16 * 6 * 58 + 12 * 48**2
    assert row.readouts == own + every + matrices + 8 * 10 * d + 400 * (48 + 10 + 24)


def test_slow_fabric_makes_zero3_fabric_bound():
    w, load = plan_of("--recipe", "qwen3-8b", "--lora.rank", "0", "--train.batch_size", "4")
    fast, slow = (predict(w, load, Zero(3), 64, H200, g, 0.55) for g in (4e11, 4e9))
    assert slow.bound == "fabric" and slow.speed < fast.speed / 5
    assert fast.wire == slow.wire


def test_advice(capsys):
    w, load = plan_of("--recipe", "qwen3-8b", "--lora.rank", "0", "--train.batch_size", "8")
    zeros = stages(None, w.shape.width)[0]
    setting = Setting(w, load, H200._replace(memory=79 * GIB), 4e11, 0.55)
    lines, best = advise(setting, zeros, 8)
    # 7.7 G parameters of 16 B each: 115 GiB at ZeRO-0; of 2 + 14 / 8: 27 GiB at ZeRO-1
    assert best is not None and best.stage == 1 and "ZeRO-1" in lines[0]
    assert not setting.row(zeros[0], 8).fits
    small = setting._replace(machine=H200._replace(memory=22 * GIB))
    assert lowest_that_fits(small, zeros, 8) is None or advise(small, zeros, 8)[1].stage == 3
    lines, best = advise(setting._replace(machine=H200._replace(memory=2 * GIB)), zeros, 8)
    assert best is None and "nothing fits" in lines[0]
    # a batch that does not fit in one pass: a chunk that does
    many = setting._replace(load=load._replace(texts=6_000, tokens=200.0, pairs=2_000))
    lines, best = advise(many, zeros, 8)
    assert best is not None and best.fits and best.chunk and "--train.chunk_size" in lines[0]
    row = largest_chunk(many, zeros, 8)
    assert row is not None and row.fits and row.chunk.bit_count() == 1
    assert not many.chunked(2 * row.chunk).row(zeros[row.stage], 8).fits


def test_a_step_s_load_follows_its_options():
    w, load = plan_of("--recipe", "qwen3-0.6b", "--objective.preset", "paper",
                      "--train.chunk_tokens", "1100", "--data.max_length", "256",
                      "--sia.layers_per_step", "2", "--pic.links_per_step", "3")  # fmt: skip
    assert (load.chunk, load.links, w.tokens_layers) == (4, 3, 2)
    assert plan_of("--recipe", "qwen3-0.6b", "--train.chunk_tokens", "8")[1].chunk == 1
    w, load = plan_of("--recipe", "qwen3-0.6b", "--objective.preset", "paper")
    assert (load.chunk, load.links, w.tokens_layers) == (0, 6, 7)


def test_files_name_the_stage_and_offloading():
    key = "use_multi_rank_bucket_allreduce"
    assert [from_section(s, Zero(1)).all_reduce for s in ({}, {key: True}, {key: False})] == [
        True, True, False]  # fmt: skip
    found, stage = stages(str(ROOT / "ds_configs/zero3_offload.json"), 1024)
    assert stage == 3 and found[3].offload_optimizer and found[3].offload_param
    w = work("Qwen/Qwen3-Embedding-8B")
    assert sum(formulas.states(w, found[3], 2)) < 3 * GIB


# ------------------------------------------------------------------------------ the command


def test_the_table(capsys):
    argv = ["--recipe", "qwen3-0.6b", "--ds_config", str(ROOT / "ds_configs/zero2.json")]
    assert main([*argv, "--ranks", "4", "--gpu", "l4"]) == 0
    out = capsys.readouterr().out
    assert "built-in table" in out and "ZeRO-2*" in out and "ZeRO-3" in out and "use ZeRO-" in out
    assert max(map(len, out.splitlines())) < 200


def test_what_is_not_counted_is_said(capsys):
    flags = ["--recipe", "qwen3-0.6b"]
    assert main([*flags, "--train.optimizer", "muon"]) == 0
    assert "the state of muon is smaller" in capsys.readouterr().out
    assert main(flags) == 0 and "smaller" not in capsys.readouterr().out


TERMS = {
    "mic": ["--objective.name", "mic"], "ese": ["--objective.name", "ese"],
    "2dmse": ["--objective.name", "2dmse"], "3dml": ["--objective.name", "3dml"],
    "starbucks": ["--objective.name", "starbucks"], "mipic": [],
    "ladder": ["--teacher.name", "base", "--teacher.layers", "ladder", "--teacher.vector", "1"],
}  # fmt: skip


@pytest.mark.parametrize("name", TERMS)
def test_every_objective_is_counted_as_it_is(name):
    """Layers that are gathered, layers whose tokens are read, and heads: those of the module."""
    from mipic_llm.objective import build_objective

    argv = ["--objective.dims", "16,32,384", "--data.negatives", "0", *TERMS[name]]
    w, load = plan_of("--recipe", "quickstart", *argv)
    c = resolve(load_config(["--recipe", "quickstart", *argv]), width=384, n_layers=6, bf16=True)
    made = build_objective(c, width=384, depth=6, teacher_width=384)
    needs = made.needs(made.draw(0))
    assert load.gathered == len(made.gathered(needs)) - 1, name
    assert w.tokens_layers == len({layer for n in needs for layer in n.tokens}), name
    assert w.heads == sum(p.numel() for h in made.heads().values() for p in h.parameters())
    assert load.maps == len(made.heads().get("teacher_maps", []))
    assert load.taught == (384 if name == "ladder" else 0) and load.square == (name == "mic")
    simple = plan_of("--recipe", "quickstart", *argv, "--objective.name", "simcse",
                     "--teacher.name", "none", "--teacher.vector", "0")  # fmt: skip
    more, less = (predict(*one, Zero(0), 8, H200, 4e11, 0.55) for one in ((w, load), simple))
    assert more.readouts > less.readouts and more.wire.readouts >= less.wire.readouts
    assert (more.wire.readouts > less.wire.readouts) == bool(load.gathered or load.links or
                                                             load.taught)  # fmt: skip


def test_stages_of_a_run(capsys, tmp_path):
    """What needs most decides; heads of all stages are there from the start."""
    path = tmp_path / "stages.yaml"
    path.write_text(
        "stages:\n"
        "  - {steps: 1000, train: [a.jsonl], max_length: 64, options: {objective.name: mrl}}"
        "\n  - {steps: 100, train: [b.jsonl], batch_size: 256}\nmodel: {name: quickstart}\n"
        "objective: {preset: paper}\nteacher: {name: base}\n"
    )
    assert main(["--recipe", str(path), "--ranks", "4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    first, second = found["stages"]
    assert (first["steps"], second["steps"]) == (1000, 100) and found["load"]["pairs"] == 256
    assert first["gib"] < second["gib"] and first["seconds"] <= second["seconds"]
    one = [w for _, w in works_of(load_config(["--recipe", str(path)]), SHAPES["quickstart"])]
    assert one[0].heads == one[1].heads > 0
    assert main(["--recipe", str(path), "--ranks", "4"]) == 0
    out = capsys.readouterr().out
    assert "the tables are of stage 2, which needs most" in out and "stage 1 of 2: 1,000" in out
    assert "note: a teacher is counted as wide as the student" in out


def test_json_and_sweep(capsys):
    assert main(["--recipe", "bge-m3", "--sweep", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["ranks"] for row in found["rows"]] == [2**i for i in range(11)]
    speeds = [row["speed"] for row in found["rows"]]
    assert speeds == sorted(speeds)
    assert found["recommended"]["fits"] is True


@pytest.mark.parametrize("argv, words", [
    (["--ranks", "2048"], "--ranks"),
    (["--gpu", "h2000"], "gpu must be one of"),
    (["--model.name", "nobody/knows"], "built-in table"),
    (["--model.name", "./nowhere"], "no such directory"),
    (["--mean_tokens", "9999"], "data.max_length"),
    (["--ds_config", "none.json"], "cannot be read"),
    (["--fabric_gbps", "0"], "--fabric_gbps"),
])  # fmt: skip
def test_bad_input_is_one_line(argv, words, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(SystemExit) as stop:
        run_main(main, argv)
    err = capsys.readouterr().err.strip().splitlines()
    assert stop.value.code == 2
    assert words in err[-1] and err[-1].startswith("error: ")


def test_unknown_architecture(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(UserError, match="no formulas"):
        find_shape(str(tmp_path))


def test_it_needs_neither_torch_nor_deepspeed():
    code = (
        "import sys; from mipic_llm.commands.plan import main; main(['--recipe', 'bge-m3']); "
        "assert not {'torch', 'deepspeed', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True)
