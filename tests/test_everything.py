"""Every kind of source in one run, with prompts of their own and a teacher, on two ranks at ZeRO-3
in chunks: killed and resumed, from rows in memory or on disk, it equals the uninterrupted one byte
for byte."""

from __future__ import annotations

import json
import random
import signal
from pathlib import Path

import pytest
from ranks import ROOT, run_ranks
from test_data_formats import write_jsonl
from test_resume import LENGTHS, SCRIPT, interrupt, rows, weights
from tiny_models import SENTENCES, tiny_bert

STEPS, EVERY, _ = LENGTHS[3]
RECIPE = """\
seed: 3
ds_config: {zero3}
model: {{name: {place}/base, dropout: 0.1, rotate: pca}}
teacher: {{name: base, relation: 2, vector: 1}}
objective:
  {{dims: [4, 16, 32], false_negative_margin: 0.05, directions: [query_to_doc, doc_to_query]}}
data:
  validation: []
  max_length: 24
  negatives_draw: random
  mixture_temperature: 2
  token_cache: {place}/cache
  sources:
    - {{path: {place}/asked.jsonl, name: asked, query_prompt: "question: ", max_length: 16,
       columns: {{anchor: ask, positive: answer}}, negatives: 2, in_batch: false}}
    - {{path: {place}/pairs.jsonl, name: pairs, weight: 0.5, document_prompt: "text: "}}
    - {{path: {place}/scored.jsonl, name: scored}}
    - {{path: {place}/bare.txt, name: bare}}
train:
  {{batch_size: 4, chunk_size: 9, max_steps: {steps}, save_every: {every}, learning_rate: 0.001}}
export: {{rehearse: false}}
tracking: {{mlflow: "off"}}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder, draw = tmp_path_factory.mktemp("everything"), random.Random(0)
    tiny_bert(folder / "base", layers=2)

    def text() -> str:
        return f"{draw.choice(SENTENCES)} {draw.randrange(10_000)}"

    write_jsonl(
        folder / "asked.jsonl",
        [{"ask": text(), "answer": text(), "neg": [text() for _ in range(5)]} for _ in range(40)],
    )
    write_jsonl(folder / "pairs.jsonl", [{"query": text(), "positive": text()} for _ in range(60)])
    write_jsonl(
        folder / "scored.jsonl",
        [{"sentence1": text(), "sentence2": text(), "score": draw.random()} for _ in range(30)],
    )
    (folder / "bare.txt").write_text("".join(f"{text()}\n" for _ in range(30)))
    recipe = RECIPE.format(
        place=folder, zero3=ROOT / "ds_configs" / "zero3.json", steps=STEPS, every=EVERY
    )
    (folder / "recipe.yaml").write_text(recipe)
    return folder


def test_all_kinds_of_sources_resume_byte_for_byte(place, tmp_path) -> None:
    arguments = ["--recipe", str(place / "recipe.yaml"), "--output_dir"]
    code, text = run_ranks(2, SCRIPT, [*arguments, str(tmp_path / "whole")])
    assert code == 0, text[-4000:]
    assert "those of data.sources are the student's alone" in text
    out = tmp_path / "broken"
    interrupt([*arguments, str(out)], out, signal.SIGKILL, tmp_path / "log", 2 * EVERY)
    assert not (out / "adapter").exists(), "it ended before the signal: nothing was tested"
    for stream in ("true", "false"):  # begun in memory, then from disk, then in memory again
        own = ["--train.resume", "auto", "--data.stream", stream]
        code, text = run_ranks(2, SCRIPT, [*arguments, str(out), *own])
        assert code == 0, text[-4000:]
        assert (text.count("its rows lie in") == 4) == (stream == "true")
        assert rows(out) == rows(tmp_path / "whole")
        assert weights(out) == weights(tmp_path / "whole")
    lines = (out / "metrics.jsonl").read_text().splitlines()
    seen = {key for line in lines for key in json.loads(line)}
    wanted = {f"loss_source/{name}" for name in ("asked", "pairs", "scored", "bare")}
    assert (
        wanted | {"loss/mrl", "loss/cosent", "loss/teacher_relation", "loss/teacher_vector"} <= seen
    ), sorted(seen)
