"""Stages of one run: their data, rates and steps; resumed in each, and between them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from ranks import ROOT, run_ranks
from test_resume import SCRIPT, rows, weights
from tiny_models import SENTENCES, tiny_bert
from torch import nn

from mipic_llm.config import dump, load_config, resolve, resolve_stages
from mipic_llm.config.compare import compare
from mipic_llm.data.plan import BatchPlan
from mipic_llm.data.read.rows import Example, TextSource
from mipic_llm.data.stages import StagedPlan
from mipic_llm.errors import UserError
from mipic_llm.objective import EmbeddingModule, build_objective
from mipic_llm.objective.term import Inside
from mipic_llm.training.schedule import schedule_of, schedule_of_stages
from mipic_llm.training.setup import open_run

STAGES = """\
stages:
  - name: pairs
    steps: 10
    train: [{folder}/a.jsonl]
    learning_rate: 1e-3
  - steps: 10
    schedule: constant
    warmup_ratio: 0
    sources:
      - {{path: {folder}/a.jsonl, weight: 2, query_prompt: "query: "}}
      - {{path: {folder}/b.txt, name: texts}}
model: {{name: {folder}/base, dropout: 0.1}}
objective: {{dims: [4, 16, 32]}}
data: {{max_length: 24, validation: []}}
train: {{batch_size: 4, save_every: 5, keep_checkpoints: 0, learning_rate: 5e-4}}
export: {{rehearse: false}}
tracking: {{mlflow: "off"}}
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stages")
    tiny_bert(folder / "base", layers=3)
    pairs = zip(SENTENCES, SENTENCES[1:], strict=False)
    text = "".join(json.dumps({"anchor": a, "positive": b}) + "\n" for a, b in pairs)
    (folder / "a.jsonl").write_text(text)
    (folder / "b.txt").write_text("\n".join(f"{s} {i}" for i, s in enumerate(SENTENCES)))
    (folder / "recipe.yaml").write_text(STAGES.format(folder=folder))
    return folder / "recipe.yaml"


def test_resumed_within_each_stage(recipe, tmp_path) -> None:
    """At the border of two: below. Killed: test_resume.py, test_everything.py."""
    own = ["--recipe", str(recipe), "--ds_config", str(ROOT / "ds_configs" / "zero2.json")]
    out = tmp_path / "out"
    own += ["--output_dir", str(out)]
    code, text = run_ranks(2, SCRIPT, own)
    assert code == 0, text[-4000:]
    assert "stage 1 of 2 (pairs): 10 steps, peak rate 0.001" in text
    assert "stage 2 of 2: 10 steps, peak rate 0.0005" in text
    logged = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["stage"] for row in logged] == [1] * 10 + [2] * 10
    assert [row["lr"] for row in logged[10:]] == [5e-4] * 10 and logged[1]["lr"] > 9e-4
    seen = {key for row in logged[10:] for key in row if key.startswith("loss_source/")}
    assert len(seen) == 2 and "loss_source/texts" in seen
    whole = rows(out), weights(out)
    for at in (15, 5):
        name = str(out / "checkpoints" / f"step-{at:08d}")
        code, text = run_ranks(2, SCRIPT, [*own, "--train.resume", name])
        assert code == 0, text[-4000:]
        assert (rows(out), weights(out)) == whole, at


OWN = """\
stages:
  - {{steps: 2, train: [{folder}/a.jsonl]}}
  - steps: 2
    train: [{folder}/a.jsonl]
    batch_size: 5
    max_length: 8
    options: {{objective.name: mrl, objective.tau: 0.5, teacher.relation: 0}}
  - steps: 2
    train: [{folder}/b.txt]
    options: {{pic.ladder: ["4@2", "32@3"], teacher.vector: 1}}
model: {{name: {folder}/base, dropout: 0.1}}
objective: {{dims: [4, 16, 32]}}
teacher: {{name: base}}
sia: {{memory: 20}}
data: {{max_length: 24, validation: []}}
train: {{batch_size: 4, save_every: 1, keep_checkpoints: 0, learning_rate: 5e-4, chunk_size: 5}}
export: {{rehearse: false}}
tracking: {{mlflow: "off"}}
"""


def test_objectives_sizes_and_lengths_of_stages(recipe, tmp_path) -> None:
    """Resumed within a stage and at its border, byte for byte, at ZeRO-3 in chunks."""
    path, out = tmp_path / "own.yaml", tmp_path / "out"
    path.write_text(OWN.format(folder=recipe.parent))
    own = ["--recipe", str(path), "--ds_config", str(ROOT / "ds_configs" / "zero3.json"),
           "--output_dir", str(out)]  # fmt: skip
    code, text = run_ranks(2, SCRIPT, own)
    assert code == 0, text[-4000:]
    assert "stage 2 of 3: 2 steps, peak rate 0.0005, objective.name mrl" in text
    whole = rows(out), weights(out)
    logged = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    parts = [{key for key in row if key.startswith("loss/")} for row in logged]
    assert {k.partition("@")[0].split("/")[1] for k in parts[3]} == {"mrl"}
    assert len(parts[0]) > len(parts[3]) < len(parts[5]) and parts[5] - parts[0]
    assert any("vector" in key for key in parts[5]) and not any("vector" in k for k in parts[0])
    for at in (3, 4):
        own_at = out / "checkpoints" / f"step-{at:08d}"
        more = ["--train.selfcheck", "false"]  # the whole run has done it: it leaves no trace
        code, text = run_ranks(2, SCRIPT, [*own, "--train.resume", str(own_at), *more])
        assert code == 0, text[-4000:]
        assert (rows(out), weights(out)) == whole, at
    code, text = run_ranks(
        1, SCRIPT, [*own, "--train.resume", str(own_at), "--train.batch_size", "8"]
    )
    assert code == 2 and "stages have a batch_size of their own, per rank" in text


def test_heads_that_stages_share(recipe, tmp_path) -> None:
    """One name and shapes: the same heads; else fresh ones, which idle in other stages."""
    path = tmp_path / "own.yaml"
    path.write_text(OWN.format(folder=recipe.parent))
    config = resolve(load_config(["--recipe", str(path)]), width=32, n_layers=3)
    stages = resolve_stages(config, width=32, n_layers=3)
    assert [c.objective.name for c in stages] == ["mipic", "mrl", "mipic"]
    assert [c.train.batch_size for c in stages] == [4, 5, 4] and stages[1].data.max_length == 8
    made = [build_objective(c, width=32, depth=3, teacher_width=32) for c in stages]
    module = EmbeddingModule(nn.Linear(1, 1), *made)
    first, second, third = (one.heads() for one in made)
    assert first["phis"] is not third["phis"] and not second
    names = {name.partition(".")[0] for name, _ in module.named_parameters()} - {"backbone"}
    assert names == {"phis", "phis_of_stage_3", "teacher_maps"}
    idle = [{id(heads) for heads in one.others} for one in made]
    assert idle[0] >= {id(third["phis"]), id(third["teacher_maps"])} and len(idle[1]) == 5
    assert idle[2] == {id(first["phis"]), id(first["lifts"])}
    loss, _ = made[1].inside(
        Inside({3: torch.ones(2, 32)}, {}, torch.ones(2, 1)), made[1].draw(0), 1.0
    )
    loss.backward()  # all have a gradient, of zero
    gradients = [p.grad for heads in made[1].others for p in heads.parameters()]
    assert loss == 0 and gradients and not any(grad.any() for grad in gradients)
    again = [build_objective(stages[0], width=32, depth=3, teacher_width=32) for _ in range(2)]
    alike = EmbeddingModule(nn.Linear(1, 1), *again)
    assert again[0].heads() == again[1].heads() and not again[0].others
    for one in (made[0], again[0]):
        one.memory.restore((torch.ones(3, 32), 3, torch.arange(3)), torch.device("cpu"))
    alike.enter(1)
    assert torch.equal(again[1].memory.state()[0], torch.ones(3, 32))  # goes on from the last stage
    for stage in (1, 2):
        module.enter(stage)
        assert module.objective is made[stage]
    assert made[1].memory.size == 0 and made[2].memory.state() is None


@pytest.mark.parametrize("options, words", [
    ("teacher.scores: 1", "entry 2 of stages: teacher.scores and teacher.margin: no row has"),
    ("teacher.margin: 1", "entry 2 of stages: teacher.scores and teacher.margin: no row has"),
    ("scored.loss: angle", "entry 2 of stages: options has scored.loss, and no rows here are"),
    ("pic.ladder: [4@2, 32@5]", "entry 2 of stages: pic.ladder has 32@5, the model has 3 layers"),
    ("sia.layers: [2, 5]", "entry 2 of stages: sia.layers has 5, the model has 3 layers"),
])  # fmt: skip
def test_what_a_stage_asks_in_vain_is_refused_before_the_first_step(
    recipe, tmp_path, options, words
) -> None:
    """What needs the model or the rows; a run of the stage's own would be refused too."""
    path = tmp_path / "own.yaml"
    text = STAGES.replace("    schedule: con", f"    options: {{{{{options}}}}}\n    schedule: con")
    path.write_text(text.format(folder=recipe.parent))
    config = load_config(["--recipe", str(path)])
    with pytest.raises(UserError, match=re.escape(words)):
        open_run(config)


def test_options_of_a_stage_take_effect(recipe, tmp_path) -> None:
    """What was derived for the run is derived anew, and heads that begin in another way are fresh
    ones; what the run itself was given stays."""
    path = tmp_path / "own.yaml"
    text = STAGES.replace("    schedule: con", "    options: {{pic.checkpoints: 2, objective.tau: "
                          "0.5, sia.lift_init: linear}}\n    schedule: con")  # fmt: skip
    text = text.replace("dims: [4, 16, 32]}}", "dims: [4, 16, 32], tau_learnable: true}}\n"
                        "sia: {{lift_init: prefix}}")  # fmt: skip
    for given, layers in (("", [2, 4]), ("\nsia: {{layers: [1, 3]}}", [1, 3])):
        new = text if not given else text.replace("prefix}}", "prefix, layers: [1, 3]}}")
        path.write_text(new.format(folder=recipe.parent))
        config = resolve(load_config(["--recipe", str(path)]), width=32, n_layers=4)
        (tmp_path / "again.yaml").write_text(dump(config))
        again = load_config(["--recipe", str(tmp_path / "again.yaml")])
        for one in (config, resolve(again, width=32, n_layers=4)):
            first, second = resolve_stages(one, width=32, n_layers=4)
            assert len(first.pic.ladder) == 3 and second.pic.ladder == ["4@2", "32@4"]
            assert second.sia.layers == layers
    made = [build_objective(c, width=32, depth=4) for c in (first, second, second, first)]
    module = EmbeddingModule(nn.Linear(1, 1), *made)
    for name in ("temperature", "lifts"):
        one, two, three, four = (o.heads()[name] for o in made)
        assert one is four and two is three and one is not two, name
    assert made[1].heads()["temperature"][0](torch.zeros(1, 1)).item() == pytest.approx(0.5)
    assert "temperature_of_stage_2" in dict(module.named_children())


def test_the_plan_of_stages() -> None:
    sources = [TextSource(n, [Example(f"{n}{i}", f"{n}{i}b", tuple("xyz"), i) for i in range(17)],
                          1.0) for n in "abc"]  # fmt: skip
    plan = StagedPlan([(sources[:1], 9, None), (sources[1:], 6, None)], 2, 2, 7)
    places = list(plan.steps())
    assert places == [plan.position(n) for n in range(15)] and plan.total(1) == 15
    assert list(plan.steps(1, 4)) == places[13:] and plan.position(15) == (2, 0)
    own = [BatchPlan(sources[:1], 2, 2, 7), BatchPlan(sources[1:], 2, 2, 8)]
    for stage, at in places:
        here = own[stage].position(at)
        assert plan.batch(stage, at) == [(s + stage, i) for s, i in own[stage].batch(*here)]
        assert plan.draw(stage, at, [3] * 4, 1) == own[stage].draw(*here, [3] * 4, 1)
        assert plan.seed_of(stage, at) == own[stage].seed_of(*here)
    assert {s for s, _ in plan.batch(1, 0) + plan.batch(1, 1) + plan.batch(1, 2)} == {1, 2}
    assert plan.repeated(15) == 4 * 4
    assert StagedPlan([(sources, 3, None)], 2, 2, 7).repeated(3) is None
    sizes = StagedPlan([(sources[:1], 2, 3), (sources[1:], 2, None)], 2, 2, 7)
    assert [len(sizes.batch(*at)) for at in sizes.steps()] == [6, 6, 4, 4]
    for batch in (range(6), range(4)):
        half = len(batch) // 2
        assert [sizes.local(batch, rank) for rank in (0, 1)] == [batch[:half], batch[half:]]
    assert plan.rows == 4 and plan.sizes(3) == ((4, 3),)
    longer = StagedPlan([(sources[:1], 9, None), (sources[1:], 20, None)], 2, 2, 7)
    assert longer.repeated(29) == 4 * 4  # of the shortest epoch that comes again


def test_rates_of_stages(recipe) -> None:
    config = resolve(load_config(["--recipe", str(recipe)]), width=32, n_layers=4)
    factor = schedule_of_stages(config)
    first = schedule_of(config.train, 10)
    assert [factor(n) for n in range(10)] == [2 * first(n) for n in range(10)]
    assert {factor(n) for n in range(10, 22)} == {1.0}
    alike = config.stages[1].model_copy(update={"schedule": None, "warmup_ratio": 0.3})
    factor = schedule_of_stages(config.replace(stages=[config.stages[0], alike]))
    second = schedule_of(config.train.model_copy(update={"warmup_ratio": 0.3}), 10)
    assert [factor(n) for n in range(10, 20)] == [second(n) for n in range(10)] != [1.0] * 10


def test_a_record_is_read_back_and_compared(recipe, tmp_path) -> None:
    config = resolve(load_config(["--recipe", str(recipe)]), width=32, n_layers=4)
    (tmp_path / "again.yaml").write_text(dump(config))
    again = load_config(["--recipe", str(tmp_path / "again.yaml")])
    assert again.stages == config.stages and again.data.train == []
    same = {"rows": True, "base": True, "teacher": True}
    moved = recipe.read_text().replace("/a.jsonl", "/c.jsonl")
    for text, wrong in (
        (moved, None),
        (moved.replace("steps: 10", "steps: 9", 1), "change: entry 1 of stages: steps 10 -> 9; g"),
        (moved.replace("query: ", "q: "), "change: entry 2 of stages: entry 1 of sources .*q: "),
        (moved.replace("schedule: constant", "options: {objective.tau: 0.2}"), "change: entry 2 of "
         "stages: schedule constant -> none; entry 2 of stages: options: objective.tau none -> 0.2"
         "; give the values"),
        (moved.replace("model:", "  - {steps: 3, train: [demo]}\nmodel:", 1),
         "change: stages: 2 of them -> 3; give"),
    ):  # fmt: skip
        (tmp_path / "new.yaml").write_text(text)
        new = resolve(load_config(["--recipe", str(tmp_path / "new.yaml")]), width=32, n_layers=4)
        if wrong is None:
            compare(config, new, same)
        else:
            with pytest.raises(UserError, match=wrong):
                compare(config, new, same)


@pytest.mark.parametrize("old, new, words", [
    ("steps: 10\n    train", "train", "entry 1 of stages has no steps"),
    ("steps: 10\n    train", "steps: 0\n    train", "entry 1 of stages: steps is 0"),
    ("    train: [{folder}/a.jsonl]\n", "", "entry 1 of stages has no data"),
    ("data: {{", "data: {{train: [demo], ", "data.train and stages are both given"),
    ("train: {{batch", "train: {{max_steps: 3, batch", "stages have steps of their own"),
    ("weight: 2", "weihgt: 2", "entry 2 of stages: entry 1 of sources: unknown key weihgt; did"),
    ("steps: 10\n    sch", "steps: 10\n    options: {{objective.dims: 4}}\n    sch",
     "entry 2 of stages: options has objective.dims, which all stages share"),
    ("steps: 10\n    sch", "steps: 10\n    options: {{objective.tua: 4}}\n    sch",
     "entry 2 of stages: unknown option objective.tua; did you mean objective.tau"),
    ("steps: 10\n    sch", "steps: 10\n    options: {{objective.tau: -4}}\n    sch",
     "entry 2 of stages: objective.tau is -4"),
    ("steps: 10\n    sch", "steps: 10\n    batch_size: 1\n    sch",
     "entry 2 of stages: train.batch_size is 1 on 1 rank"),
    ("steps: 10\n    sch", "steps: 10\n    options: {{teacher.vector: 1}}\n    sch",
     "entry 2 of stages: teacher.vector is 1 and there is no teacher"),
    ("steps: 10\n    sch", "steps: 10\n    options: {{teacher.relation: 1}}\n    sch",
     "entry 2 of stages: options has teacher.relation, and there is no teacher"),
    ("steps: 10\n    sch", "steps: 10\n    options: {{objective.name: mrl, sia.temperature: 1}}"
     "\n    sch", "options has sia.temperature, which objective.name mrl does not read"),
    ("steps: 10\n    sch", "steps: 10\n    options: {{pic.ladder: [32@4], pic.checkpoints: 2}}"
     "\n    sch", "entry 2 of stages: options has pic.ladder and pic.checkpoints"),
    ("name: texts", "name: 3", "entry 2 of stages: entry 2 of sources: name must be text"),
    ("path: {folder}/b.txt, ", "", "entry 2 of stages: entry 2 of sources has no path; give one"),
])  # fmt: skip
def test_what_is_refused(tmp_path, old, new, words) -> None:
    assert old in STAGES
    (tmp_path / "a.yaml").write_text(STAGES.replace(old, new, 1).format(folder=tmp_path))
    with pytest.raises(UserError, match=words):
        load_config(["--recipe", str(tmp_path / "a.yaml")])
