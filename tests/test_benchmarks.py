"""The benchmark harness's own arithmetic, and its suites end to end on tiny shapes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ranks import run_command
from scipy.stats import spearmanr

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from benchmarks import aa, data, flops, harness, plots, results  # noqa: E402
from mipic_llm.report.evaluations import write_rows  # noqa: E402
from mipic_llm.report.scores import write_scores  # noqa: E402
from mipic_llm.study.collect import read_figures  # noqa: E402
from mipic_llm.study.job import Job, write_mark  # noqa: E402
from mipic_llm.types import Point, Score  # noqa: E402


@pytest.mark.parametrize(
    ("shape", "lora_rank", "tokens_per_s"),
    [
        (flops.QWEN3_06B, 0, 153e3),
        (flops.QWEN3_06B, 16, 214e3),
        (flops.BGE_M3, 0, 219e3),
        (flops.BGE_M3, 16, 305e3),
    ],
)
def test_flops_give_the_published_limits_at_55_percent(shape, lora_rank, tokens_per_s):
    """The table of limits was derived apart from this code: length 512, 55 % of an H200."""
    work = flops.step_flops(shape, [512], lora_rank=lora_rank)
    assert 512 / work * 0.55 * 790e12 == pytest.approx(tokens_per_s, rel=0.02)


def test_flops_by_hand():
    # layer: q and o 2*2*3 = 12 each, k and v the same (heads of 3, one each); two FFN matrices 2*5
    shape = flops.Shape("x", "bert", 1, 2, 1, 1, 3, 5, 10)
    assert shape.weights == 4 * 2 * 3 + 2 * 2 * 5
    assert shape.attention([4, 2]) == 4 * (16 + 4) * 3
    assert flops.step_flops(shape, [4, 2]) == 6 * 6 * 44 + 3.5 * 240
    assert flops.step_flops(shape, [4, 2], checkpointing=True) == 6 * 8 * 44 + 4.5 * 240
    adapters = 7 * (4 * (2 + 3) + 2 * (2 + 5))
    assert shape.adapter_weights(7) == adapters
    lora = flops.step_flops(shape, [4, 2], lora_rank=7)
    assert lora == 6 * (4 * 44 + 6 * adapters) + 3.5 * 240


def test_weights_are_those_of_the_real_class():
    from transformers import AutoModel

    from benchmarks.models import hf_config

    for shape in (flops.TINY_QWEN3, flops.TINY_XLMR, flops.TINY_BERT):
        layers = AutoModel.from_config(hf_config(shape))
        stack = layers.layers if shape.kind == "qwen3" else layers.encoder.layer
        matrices = sum(p.numel() for p in stack.parameters() if p.ndim == 2)
        assert shape.weights == matrices, shape.name


def test_ratio_is_the_median_over_neighbouring_steps():
    over, under = [(2.0, 0), (9.0, 0), (8.0, 0)], [(1.0, 0), (3.0, 0), (8.0, 0)]
    assert harness.ratio_of(over, under) == 2.0  # of 2, 3, 1; a ratio of medians would give 8/3
    timing = harness.summary([(float(i), 2.0 * i) for i in range(11)])
    assert timing == (5.0, 1.0, 9.0, 10.0)


def test_verdicts():
    assert results.verdict(1.06, 1.06, False) == {"ratio": 1.06, "target": "<=1.06", "met": True}
    assert results.verdict(1.79, 1.8, True)["met"] is False


def test_csv_round_trip(tmp_path):
    timing = harness.Timing(1.5, 1.0, 2.0, 3.0)
    judged = results.verdict(2.0, 1.8, True)
    row = results.row("peers", "a, b", 'say "x"', timing, B=64, peak_mib=None, **judged)
    path = tmp_path / "r.csv"
    results.append_rows([row], path)
    results.append_rows([row], path)
    first, second = results.read_rows(path)
    assert list(first) == results.HEADER and first == second | {"date": first["date"]}
    kept = {k: v for k, v in first.items() if v and k not in ("date", "commit", "machine")}
    assert kept == row
    assert kept["met"] == "true" and kept["median_ms"] == "1.50" and "peak_mib" not in kept
    with pytest.raises(ValueError, match="speed"):
        results.row("peers", "a", "b", speed=1)


def test_the_shipped_csv_has_the_columns_and_no_paths():
    rows = results.read_rows()
    assert rows and list(rows[0]) == results.HEADER
    for row in rows:
        assert row["met"] in ("", "true", "false") and bool(row["met"]) == bool(row["target"])
        assert not any(value.startswith("/") for value in row.values())


def test_plots_are_drawn_from_the_newest_rows(tmp_path):
    blank = dict.fromkeys(results.HEADER, "") | {"suite": "step", "case": "c", "variant": "v"}
    rows = [blank | {"date": d, "ratio": r} for d, r in (("1", "9"), ("2", "1"), ("2", "3"))]
    assert plots.newest(rows, "step", "ratio") == {"c": {"v": 2.0}}
    (path,) = plots.draw("step", rows, tmp_path)
    assert path.stat().st_size > 1000
    dry = [rows[0] | {"note": "dry run"}]
    assert plots.draw("step", dry, tmp_path / "no") == []


def test_a_and_a_are_told_apart_only_where_they_differ(tmp_path):
    """Twelve made-up runs, two studies of 3 seeds: in the second, b (runs 10 to 12) is far better
    at 16@3 and far worse at 16@6."""
    rng, runs = np.random.default_rng(3), []
    points = [Point(layer, dim) for layer in (3, 6) for dim in (16, 64)]
    gold_N = rng.normal(size=200)
    for number in range(1, 13):
        rows, scores = {("gold", "sts"): gold_N}, []
        for point in points:
            noise = {3: 0.2, 6: 9.0}[point.layer] if number > 9 and point.dim == 16 else 1.0
            said_N = gold_N + noise * rng.normal(size=200)
            rows["prefix", "sts", "spearman", *point.place] = said_N
            rho = spearmanr(said_N, gold_N).statistic
            scores.append(Score("sts", "spearman", point, rho, 200))
        folder = tmp_path / str(number)
        write_scores(folder / "scores.jsonl", scores)
        write_rows(folder / "rows.npz", rows, {})
        runs.append(read_figures(folder))
    studies = list(aa.deal(runs, 3))
    signs = [{key.point: sign for key, sign in study.items()} for study in studies]
    assert [[of[point] for point in points] for of in signs] == [[0] * 4, [1, 0, -1, 0]]
    told = aa.shares(studies)
    assert "all layers, better: 12.5 +- 12.5 % of points, in 1 of 2 studies" in told
    assert "deepest layer, better: 0.0 +- 0.0 % of points, in 0 of 2 studies" in told
    assert "deepest layer, worse: 25.0 +- 25.0 % of points, in 1 of 2 studies" in told
    spread = 100 * np.std([r["prefix", "sts", "spearman", points[1]].value for r in runs], ddof=1)
    table = aa.table(studies, runs)
    assert "| sts, 3 | 1/0 (" in table and f" | 0/0 ({spread:.2f}) |\n| sts, 6 | 0/1 (" in table


def test_runs_of_another_command_are_trained_again(tmp_path):
    study = aa.runs_of(3, steps=7)
    for trial in study.trials()[1:]:
        job = Job(study, trial, tmp_path)
        job.folder.mkdir(parents=True)
        write_mark(job.folder, "train", "done", {"command": job.command("train")[1:]})
    write_mark(job.folder, "evaluate0", "done", {})
    assert aa.missing(study, tmp_path) == study.trials()[:2]  # not begun, not scored
    assert aa.missing(aa.runs_of(3, steps=8), tmp_path) == study.trials()


def test_drawn_lengths_follow_the_histogram():
    anchors, positives, negatives = data.draw(4000)
    for column, drawn in enumerate((anchors, positives, negatives)):
        pairs = data.histogram(column)
        mean = sum(n * c for n, c in pairs) / sum(c for _, c in pairs)
        assert sum(drawn) / len(drawn) == pytest.approx(mean, rel=0.05)


def test_a_suite_is_a_script_too():
    done = subprocess.run(
        [sys.executable, "benchmarks/sia.py", "--quick"],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "naive float64" in done.stdout


@pytest.mark.parametrize("suite", ["step", "profile", "gpu"])
def test_quick_suites_run_end_to_end_and_leave_the_csv_alone(suite, tmp_path):
    before = results.RESULTS.read_bytes()
    code, said = run_command(["benchmarks/run.py", suite, "--quick"], ROOT, tmp_path / "log")
    assert code == 0, said[-3000:]
    assert results.RESULTS.read_bytes() == before
    lines = [line for line in said.splitlines() if line.startswith(suite)]
    if suite == "step":
        assert any("mipic time" in line for line in lines)
        return
    if suite == "profile":  # its naive form must agree with ours, or it ends with an error
        assert any("mipic before  SIA forward" in line for line in lines)
        return
    assert "DRY RUN" in said
    rows = [line for line in lines if not line.startswith("gpu:")]
    assert rows and all("dry run" in line for line in rows)
    for part in ("tiny-qwen3 lora", "tiny-xlmr full", "mipic over mrl", "peers", "sia", "scaling"):
        assert any(part in line for line in rows), part


def parts_in(out: Path) -> dict[str, list[dict]]:
    """The rows of each part."""
    rows = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    return {part: [r for r in rows if r["part"] == part] for part in {r["part"] for r in rows}}


def check_dry(rows: list[dict]) -> None:
    assert len(rows) > 1 and all(r["dry_run"] for r in rows), rows
    assert not any(r.get("ok") is False for r in rows), rows


def test_a_part_of_gpu_check_by_itself(tmp_path):
    """As gpu_check.py starts it, but for the imports."""
    words = ["benchmarks/gpu_check.py", "--part", "attention", "--dry", "--out", str(tmp_path)]
    code, said = run_command(words, ROOT, tmp_path / "log")
    assert code == 0, said[-3000:]
    (found,) = parts_in(tmp_path).items()
    assert found[0] == "attention"
    check_dry(found[1])


def test_gpu_check_reports_although_a_part_breaks(tmp_path):
    """A dry run of three parts, one broken on purpose, in a copy of benchmarks/."""
    for name in ("mipic_llm", "launch", "ds_configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "benchmarks", tmp_path / "benchmarks")
    parts = tmp_path / "benchmarks" / "gpu_parts.py"
    text = parts.read_text()
    begin = "def chunks(run: Run) -> Rows:"
    broken = text.replace(begin, f"{begin}\n    0 / 0")
    assert broken != text
    parts.write_text(broken)
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, str(tmp_path / "benchmarks" / "gpu_check.py"), "--dry", "--budget", "600",
         "--out", str(out), "--only", "chunks", "losses", "qwen3_lora"],
        env=os.environ | {"PYTHONPATH": ""}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    by_part = parts_in(out)
    assert by_part.keys() == {"chunks", "losses", "qwen3_lora"}
    (lost,) = by_part.pop("chunks")
    assert lost["ok"] is False and "ZeroDivisionError" in lost["note"]
    for found in by_part.values():
        check_dry(found)
    assert "parts that did not end: chunks: exit code 1" in done.stdout
    assert "ZeroDivisionError" in (out / "log.txt").read_text()
