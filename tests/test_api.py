"""The Python API: training on objects, its Run, encoding, scores, plots, exports, errors, ranks."""

from __future__ import annotations

import gc
import json
import random
import signal
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from api_worker import PAIRS, ROWS, settings
from datasets import Dataset, DatasetDict
from ranks import ROOT, run_ranks
from tiny_models import SENTENCES, TEXTS, tiny_bert

import mipic_llm
from mipic_llm import UserError
from mipic_llm.api.arguments import splits_of
from mipic_llm.data.read.containers import rows_of

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> str:
    return str(tiny_bert(tmp_path_factory.mktemp("base") / "bert"))


@pytest.fixture(scope="module")
def run(base, tmp_path_factory) -> mipic_llm.Run:
    out = tmp_path_factory.mktemp("run") / "out"
    return mipic_llm.train(ROWS, output_dir=out, **settings(base))


def losses(run) -> list[float]:
    return [json.loads(x)["loss"] for x in (run.path / "metrics.jsonl").read_text().splitlines()]


def test_importing_the_package_imports_nothing_slow():
    code = (
        "import sys, mipic_llm; mipic_llm.__version__\n"
        "assert 'train' in dir(mipic_llm)\n"
        "assert not {'torch', 'numpy', 'yaml', 'transformers', 'pydantic'} & set(sys.modules)\n"
        "import mipic_llm.export\n"
        "assert callable(mipic_llm.export) and callable(mipic_llm.train)\n"
        "try: mipic_llm.nothing\n"
        "except AttributeError: print('ok')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "ok\n", done.stderr


def test_training_on_a_list_leaves_the_process_as_it_was(base, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    wanted = torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    handlers, threads = [signal.getsignal(s) for s in SIGNALS], set(threading.enumerate())
    own = settings(base) | {"tracking": {}}  # MLflow's thread runs too
    run = mipic_llm.train(ROWS, output_dir=tmp_path / "run", **own)
    assert (torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()) == wanted
    assert handlers == [signal.getsignal(s) for s in SIGNALS]
    left = [t.name for t in set(threading.enumerate()) - threads if "tqdm" not in t.name]
    assert not left and not run.stopped and (tmp_path / "mlruns.db").is_file()
    assert run.config.data.train == ["rows[0]"] and run.config.data.validation == ["rows-0"]
    assert run.config.train.max_steps == 3 and run.path == (tmp_path / "run").resolve()


@pytest.mark.parametrize("stage", ["zero0", "zero2", "zero3"])
def test_a_finished_run_frees_its_model(base, tmp_path, stage):
    class Keep(mipic_llm.Callback):
        def on_start(self, run):
            self.module, self.optimizer = (
                weakref.ref(x) for x in (run.engine.module, run.engine.ds.optimizer)
            )

    keep, own = Keep(), settings(base) | {"validation": []}
    run = mipic_llm.train(ROWS, output_dir=tmp_path, callbacks=[keep], ds_config=stage, **own)
    gc.collect()
    assert keep.optimizer() is None or not vars(keep.optimizer())
    module = keep.module()  # DeepSpeed itself keeps ZeRO-3's
    assert not sum(p.numel() for p in module.parameters()) if stage == "zero3" else module is None
    assert len(run.scores) == 0 and repr(run.scores) and run.scores._repr_html_()


def test_a_run_that_failed_at_zero3_holds_no_weights(base, tmp_path):
    class Fail(mipic_llm.Callback):
        def on_step(self, run, step, row):
            self.module = run.engine.module
            raise ValueError("mine")

    fail, own = Fail(), settings(base) | {"validation": []}
    with pytest.raises(RuntimeError, match="mine"):
        mipic_llm.train(ROWS, output_dir=tmp_path, callbacks=[fail], ds_config="zero3", **own)
    assert not sum(p.numel() for p in fail.module.parameters())
    assert not sum(p.ds_tensor.numel() for p in fail.module.parameters())


@pytest.mark.usefixtures("steps_alone")
@pytest.mark.parametrize("kind", ["file", "Dataset", "DatasetDict", "pandas", "splits", "pyarrow"])
def test_every_kind_of_data_trains_alike(base, run, tmp_path, kind):
    """The same rows from a file, a Dataset or a DatasetDict train as from the list."""
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    own = settings(base)
    data = {
        "file": tmp_path / "rows.jsonl", "Dataset": Dataset.from_list(ROWS),
        "DatasetDict": DatasetDict(train=Dataset.from_list(ROWS), dev=Dataset.from_list(PAIRS)),
        "pandas": pd.DataFrame(ROWS).astype({"positive": "category"}), "pyarrow": pa.table(
            pd.DataFrame(ROWS)),
        "splits": {"train": pd.DataFrame(ROWS), "dev": pd.DataFrame(PAIRS)},
    }[kind]  # fmt: skip
    if kind in ("DatasetDict", "splits"):
        own.pop("validation")
    found = mipic_llm.train(data, output_dir=tmp_path / "run", **own)
    assert losses(found) == losses(run) and len(losses(run)) == 3
    assert [s[2:] for s in found.scores] == [s[2:] for s in run.scores]


def test_cells_of_pandas_are_those_of_a_list_of_dicts():
    rows = [{"query": "a", "pos": ["b", "c"], "neg": None}, {"query": "d", "pos": ["e"],
                                                             "neg": ["f"]}]  # fmt: skip
    table = pd.DataFrame(rows)
    table["pos"] = [np.array(texts, object) for texts in table["pos"]]  # as from parquet
    table["score"] = pd.array([1, None], "Int64")
    wanted = [row | {"score": score} for row, score in zip(rows, (1, None), strict=True)]
    assert list(rows_of(table)) == wanted
    missing = pd.DataFrame({"text": np.array(["a", np.float64("nan")], object)})
    assert [row["text"] for row in rows_of(missing)] == ["a", None]
    with pytest.raises(UserError, match="t has two columns b"):
        rows_of(pd.DataFrame([[1, 2]], columns=["b", "b"]), "t")


def test_two_threads_take_turns(base, run, tmp_path, capsys):
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(mipic_llm.train, ROWS, output_dir=tmp_path / name, **settings(base))
                for name in "ab"]  # fmt: skip
        found = [losses(job.result()) for job in jobs]
    assert found == [losses(run)] * 2
    print("still here")
    output = capsys.readouterr().out
    assert "in another thread; this one waits" in output and output.endswith("still here\n")


@pytest.mark.usefixtures("steps_alone")
def test_several_sources_are_mixed(base, run, tmp_path, capsys):
    data = [ROWS[:12], Dataset.from_list(ROWS[12:])]
    found = mipic_llm.train(data, output_dir=tmp_path / "run", **settings(base))
    assert found.config.data.train == ["rows[0]", "Dataset[1]"] and losses(found) != losses(run)
    text = capsys.readouterr().out
    assert "read 12 rows of rows[0]" in text and "read 11 rows of Dataset[1]" in text


def test_a_validation_split_that_no_task_reads_is_said(base, tmp_path, capsys):
    (found,) = splits_of([DatasetDict(train=Dataset.from_list(ROWS), dev=Dataset.from_list(ROWS))])
    assert found.name == "dev" and len(found.rows) == len(ROWS)  # of pairs one can be made
    texts = Dataset.from_list([{"text": row["anchor"]} for row in ROWS])
    data = DatasetDict(train=Dataset.from_list(ROWS), validation=texts)
    own = settings(base) | {"validation": None, "data.validation": []}
    mipic_llm.train(data, output_dir=tmp_path / "run", **own)
    assert "its validation split has the columns text and is" in capsys.readouterr().out


@pytest.mark.parametrize("dim", [8, 16, None])
def test_encode_equals_sentence_transformers_on_the_export(run, dim):
    from sentence_transformers import SentenceTransformer

    st = SentenceTransformer(str(run.path / "adapter"), device="cpu", truncate_dim=dim)
    wanted = st.encode(TEXTS, normalize_embeddings=True)
    found = run.encode(TEXTS, dim=dim, batch_size=2)
    assert found.dtype == np.float32 and found.shape == (len(TEXTS), dim or 32)
    assert np.abs(found - wanted).max() < 1e-6 and np.ptp(found) > 0.1
    assert np.abs(np.linalg.norm(found, axis=1) - 1).max() < 1e-6
    assert np.abs(run.encode(TEXTS[1], dim=dim) - wanted[1]).max() < 1e-6  # one text, one vector


@pytest.mark.parametrize("point", ["16@2", "32@3"])
def test_encode_at_a_layer_equals_the_shallow_export(run, tmp_path, point):
    from sentence_transformers import SentenceTransformer

    dim, layer = map(int, point.split("@"))
    folder = mipic_llm.export(run, point=point, to=tmp_path)
    assert folder == tmp_path / f"shallow-{layer}x{dim}"
    st = SentenceTransformer(str(folder), device="cpu")
    wanted = st.encode(TEXTS, normalize_embeddings=True)
    assert np.abs(run.encode(TEXTS, dim=dim, layer=layer) - wanted).max() < 1e-6
    assert np.abs(run.encode(TEXTS, dim=dim) - wanted).max() > 1e-3


def test_load_and_prompts(run):
    for path in (run.path, run.path / "adapter"):
        model = mipic_llm.load(path)
        assert (model.n_layers, model.width, model.dims) == (4, 32, [8, 16, 32])
        assert np.array_equal(model.encode(TEXTS), run.encode(TEXTS))
    prompted = mipic_llm.load(run, **{"data.query_prompt": "find: "})
    wanted = run.encode(["find: " + text for text in TEXTS])
    assert np.abs(prompted.encode(TEXTS, kind="query") - wanted).max() < 1e-6
    assert np.array_equal(prompted.encode(TEXTS, kind="document"), run.encode(TEXTS))


def test_a_run_is_compared_with_its_start(run, tmp_path):
    found = mipic_llm.compare(run, output_dir=tmp_path / "page")
    assert len(found) == 1 and len(found[0].differences) == 5 and found[0].whole.known
    assert found[0].verdict()[0] in repr(found) and "95 % interval" in found._repr_markdown_()
    with pytest.raises(UserError, match="what to score them on"):
        mipic_llm.compare(run, "nowhere", output_dir=tmp_path)


def test_scores_are_a_table(run):
    scores = run.scores
    assert len(scores) == 5 and scores[0].task == "rows-0" and len(scores.before) == 5
    frame = scores.to_pandas()
    assert list(frame.columns) == ["task", "metric", "layer", "dim", "value", "n", "before"]
    assert frame["value"].tolist() == [s.value for s in scores]
    assert frame["before"].tolist() == [s.value for s in scores.before]
    assert scores._repr_html_().count("<tr>") == 6 and "<th>dim</th>" in scores._repr_html_()
    lines = repr(scores).splitlines()
    assert (
        lines[0].split()[:3] == ["task", "metric", "layer"] and f"{scores[0].value:.4f}" in lines[2]
    )


def test_plot_is_a_figure_that_a_notebook_shows(run):
    figure = run.plot()
    assert "Quality against size" in figure.axes[0].get_title(loc="left")
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_evaluate_and_export(run, tmp_path):
    data = DatasetDict(test=Dataset.from_list(PAIRS), train=Dataset.from_list(PAIRS[:9]))
    scores = mipic_llm.evaluate(run, data, dims=[8, 32], layers=[4], output_dir=tmp_path)
    after = {s.point[:2]: s.value for s in run.scores}
    assert [s.value for s in scores] == pytest.approx([after[4, 8], after[4, 32]], abs=1e-6)
    merged = mipic_llm.export(run, merged=True)
    assert merged == run.path / "merged"
    assert np.abs(mipic_llm.load(merged).encode(TEXTS) - run.encode(TEXTS)).max() < 1e-5
    assert mipic_llm.export(run) == run.path / "adapter"


class Stop(mipic_llm.Callback):
    def on_step(self, run, step, row):
        return "stop" if step == 2 else None


def test_evaluate_takes_the_flags_of_the_command(run, tmp_path):
    out = tmp_path / "out"
    mipic_llm.evaluate(run, PAIRS, dims=[8], layers=[4], output_dir=out, pca_text=["demo"],
                       bits=[1], centre=True, rows=False)  # fmt: skip
    rows = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
    assert {row["readout"] for row in rows} == {"prefix", "pca"} and not (out / "rows.npz").exists()
    with pytest.raises(UserError, match="evaluate: pca_text: pca_text must be"):
        mipic_llm.evaluate(run, PAIRS, pca_text=5)
    with pytest.raises(UserError, match="unknown setting pca_tex"):
        mipic_llm.evaluate(run, PAIRS, pca_tex=["demo"])


def test_callbacks_and_signals_stop_a_run(base, tmp_path, capsys):
    run = mipic_llm.train(ROWS, output_dir=tmp_path / "a", callbacks=[Stop()], **settings(base))
    assert len(losses(run)) == 2 and run.encode("x").shape == (32,)

    class Interrupt(mipic_llm.Callback):
        def on_step(self, run, step, row):
            signal.raise_signal(signal.SIGINT)

    own = {"output_dir": tmp_path / "b", **settings(base)}
    run = mipic_llm.train(ROWS, callbacks=[Interrupt()], **own)
    assert run.stopped and len(losses(run)) == 1
    with pytest.raises(UserError, match="ended before its model was exported"):
        run.encode("x")
    assert mipic_llm.export(run) == run.path / "adapter"  # from its checkpoint
    assert mipic_llm.export(run, point="8@2").name == "shallow-2x8"
    capsys.readouterr()
    own["train"] = own["train"] | {"resume": "auto"}
    (run.path / "adapter").rename(tmp_path / "old")
    run = mipic_llm.train(ROWS, **own)
    assert not run.stopped and len(losses(run)) == 3 and run.encode("x").shape == (32,)
    assert f"note: shallow-2x8 in {run.path} came before this model" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"train": {"max_step": 3}}, r"train\.max_step; did you mean (--)?train\.max_steps"),
        ({"objective": "mipicc"}, "mipicc.*did you mean mipic"),
        ({"recipe": "quickstrat"}, "did you mean quickstart"),
        ({"ds_config": "zero9"}, "zero9 not found"),
        ({"data": "nowhere.jsonl"}, "no such file: nowhere.jsonl"),
        ({"data": []}, "names no data"),
        ({"data": [{"a": 1}]}, "found columns a"),
        ({"data": 5}, "int; give a path, a list of dicts, a Dataset or a DataFrame"),
        ({"validation": [{"text": "a"}]}, r"rows\[0\]: found columns text; evaluation understands"),
        ({"callbacks": [Stop]}, "Stop is a class"),
        ({"callbacks": print}, "has none of the hooks"),
        ({"help": True}, "help"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_input_is_a_user_error_of_one_line(base, tmp_path, wrong, complaint):
    arguments = {"data": ROWS, **settings(base), "output_dir": tmp_path / "run", **wrong}
    with pytest.raises(UserError, match=complaint) as error:
        mipic_llm.train(**arguments)
    assert "\n" not in str(error.value)


def test_other_user_errors(run, tmp_path):
    for arguments, complaint in (
        ({"dim": 33}, "dim is 33; this model has 1 to 32"), ({"layer": 0}, "layer is 0"),
        ({"kind": "title"}, "kind is 'title'; give query, document or None"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=complaint):
            run.encode("x", **arguments)
    with pytest.raises(UserError, match=r"export: point: '64' is not dim@layer, such as 64@3"):
        mipic_llm.export(run, point="64")
    with pytest.raises(UserError, match="9 is not in 1..4"):
        mipic_llm.export(run, point="8@9", to=tmp_path)
    with pytest.raises(UserError, match="it holds no config.yaml"):
        mipic_llm.Run(tmp_path)
    with pytest.raises(UserError, match="name nothing to score"):
        mipic_llm.evaluate(run)
    for texts, complaint in ((["x", None], "text 1 is NoneType, not str"), (3, "text 0 is int")):
        with pytest.raises(UserError, match=complaint):
            run.encode(texts)
    with pytest.raises(UserError, match="merge: data: found dict; give files or folders by name"):
        mipic_llm.merge(run, to=tmp_path / "m", data=PAIRS)


def test_one_name_or_number_is_taken_where_several_are(base, run, tmp_path):
    text = tmp_path / "texts.txt"
    text.write_text("\n".join(f"{a} {b}" for a in TEXTS for b in SENTENCES), "utf-8")
    own = {"dims": 8, "layers": 4, "output_dir": tmp_path}
    found = mipic_llm.evaluate(run, PAIRS, bits=8, **own)
    assert [s.point for s in found] == [s.point for s in mipic_llm.evaluate(
        run, PAIRS, **own | {"dims": [8], "layers": [4], "bits": [8]})]  # fmt: skip
    assert len(mipic_llm.compare(run, run, data=PAIRS, **own)[0].differences) == 1
    one = mipic_llm.export(run, rotate="pca", pca_text=text, to=tmp_path / "one")
    several = mipic_llm.export(run, rotate="pca", pca_text=[str(text)], to=tmp_path / "several")
    assert np.array_equal(*(mipic_llm.load(m).encode(TEXTS) for m in (one, several)))
    mixed = mipic_llm.merge(run, to=tmp_path / "m", scale=[0.5, 1], data="demo")
    assert (mixed / "adapter").is_dir()
    late = mipic_llm.train(ROWS, output_dir=tmp_path / "a", callbacks=Stop(), **settings(base))
    assert len(losses(late)) == 2


def test_two_ranks_train_twice_in_one_process_each(base, tmp_path):
    code, text = run_ranks(2, ROOT / "tests" / "api_worker.py", [base, str(tmp_path)])
    assert code == 0, text[-4000:]
    found = [json.loads(line) for line in text.splitlines() if line.startswith('{"same"')]
    assert len(found) == 2 and found[0] == found[1]  # both ranks have the same
    assert found[0]["same"] and found[0]["shape"] == [5, 16]
    assert found[0]["value"] == pytest.approx(found[0]["after"], abs=1e-6)
    assert found[0]["shallow"] == "shallow-2x16" and found[0]["saved"] == "adapter"
    assert text.count("refused: output_dir") == 2
