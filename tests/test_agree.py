"""Ranks that read other rows, settings or directories than rank 0 are refused, or told of."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from ranks import run_ranks
from tiny_models import SENTENCES, tiny_bert

SCRIPT = """\
import os, sys
rank = int(os.environ["RANK"])
os.chdir(sys.argv[1 + rank])
import mipic_llm.evaluation.agree
mipic_llm.evaluation.agree.PATIENCE = 1.0
from mipic_llm.commands.run import run
sys.argv = ["mipic", *[a.replace("RANK", str(rank)) for a in sys.argv[3:]]]
run()
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("agree") / "bert")


def ranks(folder: Path, order: list[str], *words: str | Path) -> tuple[int, str]:
    """A command on two ranks in directories of their own; the second one's rows.csv is in this
    order."""
    for name, texts in (("one", SENTENCES), ("two", order)):
        (folder / name).mkdir(exist_ok=True)
        rows = [f"{a},{a} again" for a in texts if "," not in a]
        (folder / name / "rows.csv").write_text("\n".join(["anchor,positive", *rows]))
    (folder / "start.py").write_text(SCRIPT)
    return run_ranks(2, folder / "start.py", [folder / "one", folder / "two", *words])


def start(folder: Path, model: Path, *flags: str, order: list[str] = SENTENCES) -> tuple[int, str]:
    return ranks(
        folder, order, "train", "--model.name", model, "--data.train", "rows.csv",
        "--data.validation", "none", "--objective.name", "mrl", "--train.max_steps", "2",
        "--train.batch_size", "4", "--tracking.mlflow", "off", "--export.rehearse", "false", *flags,
    )  # fmt: skip


def test_other_rows_on_another_machine_are_refused(model, tmp_path) -> None:
    for change in (lambda texts: texts.reverse(), lambda texts: texts.pop()):
        texts = list(SENTENCES)
        change(texts)
        code, output = start(tmp_path, model, "--output_dir", str(tmp_path / "out"), order=texts)
        assert code == 2 and "training data rows.csv: rank 1 (" in output, output
        assert output.count("error") == 1 and "Traceback" not in output


def test_other_settings_and_another_base_are_refused(model, tmp_path) -> None:
    out = ["--output_dir", str(tmp_path / "out")]
    code, output = start(tmp_path, model, *out, "--seed", "1RANK")
    assert code == 2 and "seed 10 -> 11 from rank 0 to rank 1 (" in output, output
    for rank in range(2):
        (tmp_path / f"ds{rank}.json").write_text(f'{{"zero_optimization": {{"stage": {rank}}}}}')
    code, output = start(tmp_path, model, *out, "--ds_config", str(tmp_path / "dsRANK.json"))
    assert code == 2 and "ds_config: " in output and "something else on rank 1 (" in output, output
    for rank in range(2):
        tiny_bert(tmp_path / f"bert{rank}", seed=rank)
    code, output = start(tmp_path, tmp_path / "bertRANK", *out)
    assert code == 2 and "holds other files on rank 1 (" in output, output
    tiny_bert(tmp_path / "bert1", seed=0)  # the same base in another place
    code, output = start(tmp_path, tmp_path / "bertRANK", *out)
    assert code == 0 and (tmp_path / "out" / "adapter").is_dir(), output


def test_another_version_on_another_machine_is_refused(model, tmp_path, monkeypatch) -> None:
    other = """\
import importlib.metadata as m
real = m.version
m.version = lambda name: "99.0" if rank and name == "peft" else real(name)
import mipic_llm.evaluation.agree
"""
    script = SCRIPT.replace("import mipic_llm.evaluation.agree\n", other, 1)
    monkeypatch.setitem(globals(), "SCRIPT", script)
    code, output = start(tmp_path, model, "--output_dir", str(tmp_path / "out"))
    assert code == 2 and "on rank 0 and 99.0 on rank 1 (" in output and "peft is" in output, output


def test_an_output_directory_of_each_machine_takes_no_checkpoints(model, tmp_path) -> None:
    code, output = start(tmp_path, model, "--output_dir", "out", "--train.save_every", "1")
    assert code == 2 and "output_dir: out of rank 1 (" in output and "share" in output, output
    assert not (tmp_path / "one" / "out" / "checkpoints").exists()
    code, output = start(tmp_path, model, "--output_dir", "out")
    assert code == 0 and "note: output_dir: out of rank 1 (" in output, output
    assert (tmp_path / "one" / "out" / "adapter").is_dir()


def test_rows_of_a_program_in_two_orders_are_refused(model, tmp_path) -> None:
    rows = [{"anchor": a, "positive": f"{a} again"} for a in SENTENCES]
    code = f"""\
import os, random
import mipic_llm
rows = {rows!r}
random.Random(os.environ["RANK"]).shuffle(rows)
mipic_llm.train(rows, validation=[], model={str(model)!r}, objective="mrl",
                output_dir="{tmp_path}/out", train={{"max_steps": 1, "batch_size": 4}},
                tracking={{"mlflow": "off"}})
"""
    (tmp_path / "program.py").write_text(code)
    assert random.Random("0").random() != random.Random("1").random()
    code, output = run_ranks(2, tmp_path / "program.py", [])
    assert code != 0 and "training data rows[0]: rank 1 (" in output, output


def test_an_evaluation_and_a_search_of_other_rows_are_refused(model, tmp_path) -> None:
    for words, what in (
        (["evaluate", "--data", "rows.csv"], "evaluation data rows: rank 1 ("),
        (["mine", "--data.train", "rows.csv", "--mine.output", "mined.jsonl"], "rows or corpus: "),
    ):
        code, output = ranks(tmp_path, SENTENCES[::-1], *words, "--model", model)
        assert code == 2 and what in output and "other rows" in output, output
