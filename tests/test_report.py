"""Tables, plots, score files, launch/report.py and the progress display."""

from __future__ import annotations

import io
import json
import math
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from pathlib import Path

import numpy as np
import pytest

from mipic_llm import report
from mipic_llm.errors import UserError
from mipic_llm.report import (
    Evaluation,
    before_and_after,
    compare_two,
    comparison_plot,
    figures_table,
    loss_plot,
    progress,
    quality_plot,
    read_scores,
    write_scores,
)
from mipic_llm.report.curves import (
    Estimate,
    bytes_figure,
    bytes_table,
    curves_figure,
    heat_figure,
)
from mipic_llm.report.plots import _smooth, loss_parts, save
from mipic_llm.report.progress import Progress, clock, describe
from mipic_llm.types import Point, Score

ROOT = Path(__file__).resolve().parents[1]
DIMS = [16, 64, 384]


def scores(values, layer=6, dims=DIMS, task="sts", metric="spearman"):
    points = zip(dims, values, strict=True)
    return [Score(task, metric, Point(layer, d), v, 400) for d, v in points]


@pytest.fixture
def before():
    return [*scores([0.61, 0.755, 0.8]), *scores([0.4], layer=1, dims=[16])]


@pytest.fixture
def after():
    return [*scores([0.668, 0.77, 0.79]), *scores([0.5], layer=1, dims=[16])]


def size_of_png(path):
    data = Path(path).read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def ink(path):
    """Share of pixels that are not white, and the levels of grey that occur."""
    from matplotlib import image

    grey = np.asarray(image.imread(path))[..., :3].mean(-1)
    return float((grey < 0.95).mean()), grey


def write_metrics(path, steps=100, dims=DIMS):
    with Path(path).open("w") as file:
        for step in range(1, steps + 1):
            row = {"step": step, "loss": 1 + 1 / step, "loss/mrl": 2 / step, "loss/chain": 3 / step}
            row |= {f"loss/mrl@{dim}": 1 / step + 1 / dim for dim in dims}
            file.write(json.dumps(row) + "\n")


# ---- scores.jsonl


def test_scores_file_round_trip_with_stages(tmp_path, before, after):
    path = tmp_path / "out" / "scores.jsonl"
    write_scores(path, before, stage="before")
    write_scores(path, after, stage="after", append=True)
    assert read_scores(path) == [*before, *after]
    assert read_scores(path, stage="before") == before
    assert before_and_after(path) == (before, after)
    first = json.loads(path.read_text().splitlines()[0])
    assert list(first) == ["task", "metric", "layer", "dim", "value", "n", "stage"]
    assert first["layer"] == 6 and first["dim"] == 16 and first["value"] == 0.61
    write_scores(path, after)  # replaces, and no stage unless asked
    assert before_and_after(path) == ([], after) and "stage" not in path.read_text()
    assert list(path.parent.iterdir()) == [path]


def test_undefined_score_is_null_and_reads_back_as_nan(tmp_path):
    write_scores(tmp_path / "s.jsonl", scores([math.nan, 0.5, 0.6]))
    assert '"value": null' in (tmp_path / "s.jsonl").read_text()
    assert math.isnan(read_scores(tmp_path / "s.jsonl")[0].value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file"),
        ('{"task": "a"}\n', "line 1: not a score .*expected keys task"),
        ("{broken\n{}\n", "line 1: not JSON"),
        ("[1]\n", "line 1: not a JSON object"),
    ],
)
def test_bad_scores_file_is_the_users_error(tmp_path, text, message):
    path = tmp_path / "scores.jsonl"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_scores(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_run_without_figures_says_so(tmp_path):
    with pytest.raises(UserError, match="is this a run's output directory"):
        read_scores(tmp_path / "scores.jsonl")
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    with pytest.raises(UserError, match="has no figures: it was made without validation data"):
        read_scores(tmp_path / "scores.jsonl")


# ---- tables


def table(before, after, markdown=False):
    one, two = (Evaluation(name, s, {}, {}) for name, s in (("before", before), ("after", after)))
    return figures_table(compare_two(one, two), markdown=markdown)


def test_table_has_the_last_layer_and_the_ladder(before, after):
    assert table(before, after).splitlines() == [
        "sts: Spearman x 100, layer 6, 400 pairs",
        "  dim   before   after   change",
        "  -----------------------------",
        "   16    61.00   66.80    +5.80",
        "   64    75.50   77.00    +1.50",
        "  384    80.00   79.00    -1.00",
        "",
        "sts: Spearman x 100, other layers, 400 pairs",
        "  dim@layer   before   after   change",
        "  -----------------------------------",
        "       16@1    40.00   50.00   +10.00",
    ]


def test_markdown_table(before, after):
    text = table(before, after, markdown=True)
    assert "| dim | before | after | change |\n|---:|---:|---:|---:|\n| 16 | 61.00 |" in text
    assert "| 16@1 | 40.00 | 50.00 | +10.00 |" in text


def test_table_has_the_main_metric_first_and_marks_what_is_missing(before):
    other = scores([math.nan, 0.8, 0.81], task="other")
    text = table([*scores([0.1, 0.1, 0.1], metric="pearson"), *before, *other], other)
    assert text.index("sts: Spearman") < text.index("sts: pearson")
    assert re.search(r"^ +16 +61.00 +- +-$", text, re.M)
    assert re.search(r"^ +16 +- +- +-$", text, re.M) and re.search(r"64 +80.00 +80.00 +.0.00", text)
    assert table([], []) == "no scores"


def test_tasks_without_spearman_have_their_table_and_plot(tmp_path, before):
    """Retrieval, pairs and classification: the first metric of each speaks for it."""
    other = [*scores([0.1, 0.2, 0.3], metric="ndcg@10", task="nfcorpus"),
             *scores([0.9, 0.9, 0.9], metric="recall@100", task="nfcorpus")]  # fmt: skip
    text = table(other, other)
    assert "nfcorpus: ndcg@10 x 100, layer 6" in text and "recall@100 x 100" in text
    both = comparison_plot({"a": [*before, *other], "b": other}, tmp_path / "q.png")
    titles = [axes.get_title(loc="left") for axes in both.axes if axes.get_visible()]
    assert titles == ["Quality against size: sts", "ndcg@10: nfcorpus"]
    quality_plot(other, other, tmp_path / "one.png")
    assert (tmp_path / "q.png").stat().st_size > 5000


def test_means_are_over_the_tasks_that_all_lines_have():
    """A task that one run lacks, or that is not stored in fewer bits, is not in the others' mean;
    nor is a size where a task has no value."""
    one, two, three = ([s._replace(task=name) for s in scores([x, x, x])]
                       for name, x in (("one", 0.5), ("two", 0.9), ("three", 0.7)))  # fmt: skip
    three[0] = three[0]._replace(value=math.nan)
    figure = comparison_plot({"a": [*one, *three, *two], "b": [*one, *three]}, None)
    panels = {axes.get_title(loc="left"): {
        box.get_label(): list(box.lines[0].get_ydata()) for box in axes.containers
    } for axes in figure.axes if axes.get_visible()}  # fmt: skip
    assert panels == {"Quality against size: mean of 2 tasks": {"a": [60, 60], "b": [60, 60]},
                      "Spearman: two": {"a": [90, 90, 90]}}  # fmt: skip
    small = [s._replace(point=s.point._replace(bits=8)) for s in one]
    table = bytes_table({"prefix": [*one, *small, *two]})
    assert "384 int8" in table and "70.00" not in table
    figure = bytes_figure({"m": [*one, *small, *two]})
    titles = [axes.get_title(loc="left") for axes in figure.axes if axes.get_visible()]
    assert titles == ["Spearman: one", "Spearman: two"]


def test_a_smooth_line_of_a_long_run_takes_little():
    values = list(np.random.default_rng(0).normal(size=200_000))
    begun = time.perf_counter()
    found = _smooth(values)
    assert time.perf_counter() - begun < 2
    for i in (0, 7, 100_000, 199_999):
        window = values[max(0, i - 5000) : i + 5001]
        assert abs(found[i] - sum(window) / len(window)) < 1e-9


# ---- plots


def test_quality_plot_shows_both_lines_in_grey(tmp_path, before, after):
    quality_plot(before, after, tmp_path / "q.png")
    width, height = size_of_png(tmp_path / "q.png")
    assert (width, height) == (1024, 672)
    _, grey = ink(tmp_path / "q.png")
    assert (abs(grey - 0.19) < 0.04).sum() > 500  # the dark line
    assert (abs(grey - 0.56) < 0.04).sum() > 500  # the light one


def test_quality_plot_of_one_dim_and_of_nothing(tmp_path):
    quality_plot([], scores([0.5], dims=[32]), tmp_path / "one.png")
    assert ink(tmp_path / "one.png")[0] > 0.01
    with pytest.raises(UserError, match="no scores"):
        quality_plot([], [], tmp_path / "none.png")


def test_comparison_plot_of_many_runs(tmp_path, after):
    runs = {f"run {i}": [s._replace(value=s.value - i / 100) for s in after] for i in range(9)}
    comparison_plot(runs, tmp_path / "c.png")
    assert size_of_png(tmp_path / "c.png") == (1024, 672)


def test_sizes_stand_where_they_are_on_an_axis_of_time():
    """The last of many is always labelled, twelve at most."""
    times = {n: 10.0 + n**2 for n in range(1, 31)}
    curve = {n: Estimate(50.0 + n) for n in times}
    (axes,) = curves_figure({"a": {"x": curve}}, "q", places=times).axes
    line, *_ = axes.get_lines()  # the others are ends of error bars
    assert list(line.get_xdata()) == list(axes.get_xticks()) == list(times.values())
    words = [label.get_text() for label in axes.get_xticklabels()]
    assert len(list(filter(None, words))) <= 12 and words[-1] == "910.0\n(30)"
    (axes,) = curves_figure({"a": {"x": curve, "y": curve}}, "q").axes
    assert [label.get_text() for label in axes.get_xticklabels()] == [*map(str, times)]


def test_a_figure_is_saved_as_savefig_would_and_stays_as_it_was(tmp_path):
    curve = {16: Estimate(60.0), 64: Estimate(70.0, 2.0)}
    for i, draw in enumerate(
        (
            lambda: curves_figure({"a": {"x": curve}, "b": {"y": curve}}, "q"),
            lambda: heat_figure({"a": {(1, 16): 5.0, (2, 16): 6.0}}, "x"),
        )
    ):
        figure, again = draw(), draw()
        save(figure, tmp_path / "deep" / f"{i}.png")
        again.savefig(tmp_path / "theirs.png", dpi=160, format="png")
        want = (tmp_path / "theirs.png").read_bytes()
        assert (tmp_path / "deep" / f"{i}.png").read_bytes() == want
        assert figure.get_dpi() == again.get_dpi() != 160


@pytest.mark.parametrize("steps", [1, 3, 200])
def test_loss_plot(tmp_path, steps):
    write_metrics(tmp_path / "metrics.jsonl", steps)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 999, "loss": null}\n{"step": 10')  # a NaN step, then a torn line
    loss_plot(tmp_path / "metrics.jsonl", tmp_path / "l.png")
    width, height = size_of_png(tmp_path / "l.png")
    assert width > height and ink(tmp_path / "l.png")[0] > 0.01


def test_every_part_of_the_loss_gets_a_panel(tmp_path):
    """Those nobody knew when the plot was written too; dims of a part share one."""
    rows = [
        {"step": s, "loss": 1.0, "loss/mrl": 2.0, "loss/mrl@128": 1.0, "loss/mrl@16": 3.0,
         "loss/brand_new": s / 2, "loss/brand_new@16": None, "lr": 9.0} for s in (1, 2)
    ]  # fmt: skip
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"note": 1, "loss": 7}\n')
    assert loss_parts(path) == {
        "total": {"": [(1, 1.0), (2, 1.0)]},
        "MRL": {"": [(1, 2.0), (2, 2.0)]},
        "brand_new": {"": [(1, 0.5), (2, 1.0)]},
        "MRL per dim": {"16": [(1, 3.0), (2, 3.0)], "128": [(1, 1.0), (2, 1.0)]},
    }
    loss_plot(path, tmp_path / "l.png")
    assert size_of_png(tmp_path / "l.png") == (1584, 848)  # two rows of at most three panels


def test_loss_plot_without_losses_is_the_users_error(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match="no losses yet"):
        loss_plot(tmp_path / "metrics.jsonl", tmp_path / "l.png")


def test_matplotlib_is_imported_only_to_draw_and_keeps_the_callers_backend(tmp_path):
    code = (
        "import sys, mipic_llm.report as r; from mipic_llm.types import Point, Score\n"
        "assert 'matplotlib' not in sys.modules\n"
        "r.quality_plot([], [Score('t', 'spearman', Point(1, 8), .5, 9)], sys.argv[1])\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "q.png")], check=True)


# ---- launch/report.py


def launch(*args):
    pytest.importorskip("mipic_llm.config.read")
    command = [sys.executable, str(ROOT / "launch" / "report.py"), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_launch_report_prints_and_draws(tmp_path, before, after):
    for name in ("a", "b"):
        write_scores(tmp_path / name / "scores.jsonl", before, stage="before")
        write_scores(tmp_path / name / "scores.jsonl", after, stage="after", append=True)
        write_metrics(tmp_path / name / "metrics.jsonl")
    done = launch(tmp_path / "a", tmp_path / "b")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("   16    61.00   66.80    +5.80") == 2
    for name in ("a", "b"):
        size_of_png(tmp_path / name / "quality.png")
        size_of_png(tmp_path / name / "loss.png")
    done = launch(tmp_path / "a", tmp_path / "b", "--output", tmp_path / "both.png")
    assert done.returncode == 0 and size_of_png(tmp_path / "both.png") == (1024, 672)


def test_launch_report_of_a_missing_run_is_one_line_and_code_2(tmp_path):
    for args in ([tmp_path / "nowhere"], [], [tmp_path, "--colour"]):
        done = launch(*args)
        assert done.returncode == 2, done.stderr
        assert len(done.stderr.strip().splitlines()) == 1 and "Traceback" not in done.stderr


# ---- progress

ROW = {
    "loss": 1.2344, "loss/mrl": 0.98, "loss/relation": 0.12, "loss/geometry": 0.03,
    "loss/chain": 0.2, "loss/mrl@16": 2.0, "lr": 1.8e-4, "tokens_per_second": 12345.4,
    "padding_share": 0.21, "memory_gib": 1.2,
}  # fmt: skip


def test_describe():
    assert describe(ROW) == (
        "loss 1.234 mrl 0.98 relation 0.12 geometry 0.03 chain 0.2 lr 1.8e-04 12,345 tok/s "
        "pad 21% mem 1.2 GiB"
    )
    assert describe({"loss": 2.0, "loss/mrl": math.nan}) == "loss 2 mrl nan"
    assert [clock(s) for s in (5.4, 65, 3725)] == ["0:05", "1:05", "1:02:05"]


class Clock:
    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


def lines_of(monkeypatch, capsys, total, seconds, start=0, **more):
    time = Clock(monkeypatch)
    shown = Progress(total, start, **more)
    for step in range(start + 1, total + 1):
        time.now += seconds
        shown.update(step, ROW)
    shown.close()
    return capsys.readouterr().err.splitlines()


def test_plain_lines_where_stderr_is_no_terminal(monkeypatch, capsys):
    lines = lines_of(monkeypatch, capsys, total=160, seconds=2.0)
    assert lines[0].startswith("step 1/160 loss 1.234 mrl 0.98 ")
    assert lines[0].endswith("ETA 5:18") and lines[-1].endswith("ETA 0:00")
    assert lines[-1].startswith("step 160/160") and 20 <= len(lines) <= 22


def test_short_runs_say_little_and_long_ones_do_not_fall_silent(monkeypatch, capsys):
    assert len(lines_of(monkeypatch, capsys, total=100, seconds=0.01)) == 2
    steps = [
        int(re.match(r"step (\d+)", line)[1])
        for line in lines_of(monkeypatch, capsys, total=10_000, seconds=1.0, start=9_000)
    ]
    gaps = [b - a for a, b in zip(steps, steps[1:], strict=False)]
    assert steps[0] == 9_001 and max(gaps) <= 60 and min(gaps[:-1]) >= 5


def test_a_wait_that_is_soon_over_shows_nothing(monkeypatch, capsys):
    more = {"what": "encoded text", "patience": 10.0}
    assert lines_of(monkeypatch, capsys, total=100, seconds=0.09, **more) == []
    assert lines_of(monkeypatch, capsys, total=2, seconds=6.0, **more) == []  # over with the word
    lines = lines_of(monkeypatch, capsys, total=100, seconds=1.0, **more)
    assert lines[0].startswith("encoded text 10/100 ") and lines[0].endswith("ETA 1:30")
    assert lines[-1].startswith("encoded text 100/100 ") and 15 <= len(lines) <= 20


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_no_bar_of_a_wait_that_is_soon_over(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    shown = Progress(2, what="encoded text", patience=10.0)
    shown.update(1, {}), shown.update(2, {})
    assert terminal.getvalue() == ""
    shown = Progress(2, what="encoded text", patience=0.01)
    time.sleep(0.15), shown.update(1, {}), shown.update(2, {})
    *_, bar, left = terminal.getvalue().split("\r")[:-1]
    assert bar.startswith("encoded text ") and "/2" in bar and not left.strip()


def test_a_terminal_of_no_size_has_lines(monkeypatch):
    """As a container's that nobody looks at: no bar fits into it."""
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        for size, shows in (((0, 0), b"step 1/2 loss"), ((40, 100), b"| 1/2")):
            termios.tcsetwinsize(slave, size)
            shown = Progress(2)
            time.sleep(0.15), shown.update(1, ROW)
            assert select.select([master], [], [], 5)[0], "nothing was shown"
            time.sleep(0.1)  # all of it
            assert shows in os.read(master, 4096)
            shown.close()
    os.close(master)


def test_a_closed_terminal_ends_the_display_alone(monkeypatch):
    def gone(text):
        raise OSError(5, "Input/output error")

    terminal = io.StringIO()
    terminal.write = gone
    monkeypatch.setattr(sys, "stderr", terminal)
    shown = Progress(3)
    shown.update(1, ROW)
    assert not shown.enabled
    shown.update(2, ROW)


def test_bar_on_a_terminal(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "200")
    shown = Progress(4, start_step=2)
    for step in (3, 4):
        shown.update(step, ROW)
    shown.close()
    last = terminal.getvalue().rstrip("\n").split("\r")[-1]
    assert "100%" in last and "4/4" in last and "mrl 0.98" in last and "ETA 0:00" in last


def test_other_ranks_show_nothing(capsys):
    shown = Progress(3, enabled=False)
    shown.update(1, ROW)
    shown.close()
    assert capsys.readouterr().err == ""


def test_report_module_asks_for_no_torch():
    for path in Path(report.__file__).parent.glob("*.py"):
        assert not re.search(r"^\s*(import|from) torch", path.read_text(), re.M), path
