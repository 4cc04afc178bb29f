"""Files of strangers, by the thousand: every reader answers with what it read or with a UserError.

`python tests/fuzz.py --cases 20000 --seed 7` runs any number of cases; test_fuzz.py runs 2,000. A
traceback, or a reader that takes longer than LIMIT, is a failure; hypothesis then looks for the
smallest input that shows it.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import gzip
import io
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
warnings.simplefilter("ignore")
# Hypothesis mistakes a slow machine for a slow test; a hang is what LIMIT is for.
from hypothesis import HealthCheck, Phase, given, seed, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from mipic_llm.config import load_config  # noqa: E402
from mipic_llm.config.files import check_file  # noqa: E402
from mipic_llm.config.schema import OPTIONS  # noqa: E402
from mipic_llm.data.read.find import check_files  # noqa: E402
from mipic_llm.errors import UserError  # noqa: E402

LIMIT = 20.0  # seconds of one case
TEXTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["", "a small boat", "none", "true", "0.5", "~nobody", "../nowhere", "/nowhere",
                     "a/b", "x" * 300, "!!python/object:os.system", "&a [*a]", "\x00", "\ud800",
                     "auto", "nan", "1e400", "9" * 5000, "-1", "16@3", "=", "a=b", "{", "[[", "'",
                     '"', "\t", "\n"]),
)  # fmt: skip
NUMBERS = st.sampled_from([0, 1, -1, 2, 0.5, 1e-9, 10**400, 2**63, 2**64, -(2**70), 1e308, True,
                           float("nan"), float("inf"), False, None])  # fmt: skip
ODD = st.recursive(
    st.one_of(NUMBERS, TEXTS, st.integers(), st.floats()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)


@st.composite
def bent(draw: Any, honest: Any) -> Any:
    """An honest tree with up to three of its nodes replaced, removed, renamed or wrapped."""
    tree = copy.deepcopy(honest)
    for _ in range(draw(st.integers(0, 3))):
        node, key = None, None
        inner = tree
        while isinstance(inner, dict | list) and inner and draw(st.integers(0, 3)):
            node = inner
            key = draw(st.sampled_from(sorted(node, key=str) if isinstance(node, dict)
                                       else range(len(node))))  # fmt: skip
            inner = node[key]
        if node is None:
            return draw(ODD)
        how = draw(st.sampled_from(["replace", "replace", "remove", "rename", "wrap"]))
        if how == "remove":
            del node[key]
        elif how == "rename" and isinstance(node, dict):
            node[draw(TEXTS)] = node.pop(key)
        else:
            node[key] = [node[key]] if how == "wrap" else draw(ODD)
    return tree


RAW = [b"[" * 100_000, b'{"a":' * 50_000, b"\xff\xfe\x00", b"- " * 9999, b"%YAML 9", b"a: &a [*a]",
       b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]"]  # fmt: skip


@st.composite
def torn(draw: Any, trees: Any, write: Callable[[Any], str]) -> bytes:
    """A tree as the bytes of a file, some of them cut off or overwritten; sometimes any bytes."""
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return draw(st.binary(max_size=40))
    if kind == 1:
        return draw(st.sampled_from(RAW))
    data = bytearray(write(draw(trees)).encode("utf-8", "surrogatepass"))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 4]))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 5))] = draw(st.binary(max_size=4))
    return bytes(data[: draw(st.sampled_from([None, None, None, len(data) // 2]))])


def to_json(tree: Any) -> str:
    return json.dumps(tree, default=str)


def to_yaml(tree: Any) -> str:
    import yaml

    return yaml.safe_dump(tree) if not isinstance(tree, str) else tree


# ------------------------------------------------------- readers: (name, share, strategy, read)

ROWS = [
    {"anchor": "a boat", "positive": "a ship", "negative": "a car"},
    {"query": "q", "pos": ["p"], "neg": ["n", "m"]},
    {"sentence1": "a", "sentence2": "b", "score": 0.5}, {"text": "t", "label": "l"}, {"text": "t"},
    {"premise": "p", "hypothesis": "h", "label": "entailment"},
    {"messages": [{"role": "user", "content": "q"}],
     "positive_messages": [[{"role": "a", "content": "p"}]]},
]  # fmt: skip
SUITE = [{"name": "a", "type": "sts", "path": "rows.jsonl"},
         {"path": "rows.jsonl", "split": "test"},
         {"type": "pairs", "validation": "rows.jsonl", "test": "rows.jsonl"}]  # fmt: skip
STUDY = {"name": "s", "recipe": "quickstart", "settings": {"train.max_steps": 3}, "seeds": [1, 2],
         "conditions": {"all": {"data.train": ["demo"]}}, "baseline": "a", "untrained": True,
         "methods": {"a": {"objective.name": "mrl"}, "b": {}}, "evaluate": {"data": ["demo"]},
         "averages": {"STS": ["demo"]}, "ranks": 1, "ds_config": "zero1"}  # fmt: skip
RECIPE = {"seed": 1, "model": {"name": "x", "dropout": 0.1}, "pic": {"ladder": ["8@1", "16@2"]},
          "data": {"train": ["a.jsonl", "b.csv=2"], "query_prompt": "q: "},
          "objective": {"dims": [8, 16], "tau": 0.1},
          "train": {"batch_size": 8, "learning_rate": 1e-4, "precision": "fp32"}}  # fmt: skip
DEEPSPEED = {"train_batch_size": "auto", "gradient_clipping": "auto", "bf16": {"enabled": "auto"},
             "zero_optimization": {"stage": 2, "reduce_bucket_size": "auto", "overlap_comm": True,
                                   "offload_optimizer": {"device": "cpu"}},
             "activation_checkpointing": {"partition_activations": True}, "flops_profiler": {},
             "tensorboard": {"enabled": False}, "aio": {"block_size": 1},
             "steps_per_print": 3}  # fmt: skip
MANIFEST = {"version": 1, "step": 3, "world_size": 1, "zero_stage": 1, "identity": {"rows": "x"},
            "files": {"config.yaml": [0, "cae66941d9efbd404e4d88758ea67670"]}}  # fmt: skip
SCORE = {"task": "t", "metric": "spearman", "layer": 3, "dim": 8, "value": 0.5, "n": 9,
         "stage": "after", "step": 1, "loss": 0.5, "loss/mrl@8": 1.0}  # fmt: skip


class Readers:
    """Every reader of a stranger's file, in one folder. Cheap ones have larger shares."""

    def __init__(self, folder: Path) -> None:
        from tiny_models import tiny_bert

        self.folder, self.honest, self.model = folder, folder / "honest", folder / "model"
        tiny_bert(self.honest)
        shutil.copytree(self.honest, self.model)
        self.files = {p.name: json.loads(p.read_text()) for p in self.honest.glob("*.json")
                      if p.name != "tokenizer.json"}  # fmt: skip
        pooling = {"pooling_mode_mean_tokens": True, "word_embedding_dimension": 32}
        kinds = enumerate(["Transformer", "Pooling"])
        self.files |= {
            "modules.json": [{"idx": i, "name": str(i), "path": "1_Pooling" * i,
                              "type": f"sentence_transformers.models.{kind}"} for i, kind in kinds],
            "1_Pooling/config.json": pooling, "adapter_config.json": {
                "base_model_name_or_path": str(self.honest), "peft_type": "LORA", "r": 4},
            "sentence_bert_config.json": {"max_seq_length": 32, "do_lower_case": True},
            "config_sentence_transformers.json": {"prompts": {"query": "q: "}, "inner_norm": "raw",
                                                  "default_prompt_name": None},
        }  # fmt: skip
        (folder / "rows.jsonl").write_text(to_json(ROWS[2]) + "\n")

    def all(self) -> list[tuple[str, float, Any, Callable[[Any], Any]]]:
        def made(honest: Any, write: Callable[[Any], str] = to_json) -> Any:
            return torn(bent(honest), write)

        rows = st.lists(st.sampled_from(ROWS).flatmap(bent), max_size=4)
        lines = st.tuples(
            st.sampled_from([".jsonl", ".json", ".csv", ".tsv", ".txt", ".jsonl.gz", ".csv.gz",
                             ".parquet", ".arrow"]),
            rows, st.integers(0, 3), st.binary(max_size=30),
        )  # fmt: skip
        keys = st.one_of(
            st.sampled_from([*OPTIONS, "learning_rate", "bf16", "print_config"]), TEXTS
        )
        words = st.one_of(TEXTS, st.sampled_from(["16,32", "1e-4", "none", "3", "quickstart"]))
        argv = st.lists(st.one_of(keys.map(lambda k: f"--{k}"), words,
                                  st.tuples(keys, words).map(lambda p: f"--{p[0]}={p[1]}")),
                        max_size=6)  # fmt: skip
        some = st.sampled_from(sorted(self.files))
        models = some.flatmap(lambda name: st.tuples(st.just(name), made(self.files[name])))
        return [
            ("rows", 0.25, lines, self.rows),
            ("recipe", 0.13, made(RECIPE, to_yaml), self.recipe),
            ("flags", 0.13, argv, self.flags),
            ("suite", 0.1, made(SUITE, to_yaml), self.suite),
            ("study", 0.1, made(STUDY, to_yaml), self.study),
            ("deepspeed", 0.1, made(DEEPSPEED), self.deepspeed),
            ("model", 0.06, models, self.directory),
            ("manifest", 0.07, made(MANIFEST), self.manifest),
            ("scores", 0.06, made(SCORE), self.scores),
        ]

    def put(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(data)
        return path

    def rows(self, case: tuple[str, list[Any], int, bytes]) -> None:
        from mipic_llm.data.read.training import read_training
        from mipic_llm.evaluation.read import load_tasks

        suffix, rows, how, noise = case
        path = self.folder / f"fuzz{suffix}"
        self.write(path, rows)
        if how == 0:
            data = bytearray(path.read_bytes())
            data[len(data) // 2 : len(data) // 2 + len(noise) // 2] = noise
            path.write_bytes(data)
        for bad in ("error", "skip"):
            with contextlib.suppress(UserError):
                read_training([str(path)], negatives=2, on_bad_rows=bad, cache_dir=None)
        load_tasks([str(path)])

    def write(self, path: Path, rows: list[Any]) -> None:
        import pyarrow
        import pyarrow.parquet

        suffix = path.name.removeprefix("fuzz").removesuffix(".gz")
        if suffix in (".parquet", ".arrow"):
            try:
                table = pyarrow.Table.from_pylist([r for r in rows if isinstance(r, dict)])
                if suffix == ".parquet":
                    pyarrow.parquet.write_table(table, path)
                else:
                    with pyarrow.ipc.new_file(str(path), table.schema) as file:
                        file.write_table(table)
            except (pyarrow.ArrowException, OverflowError, TypeError, ValueError, AttributeError):
                path.write_bytes(to_json(rows).encode())  # no table can hold these
            return
        if suffix == ".json":
            text = to_json(rows)
        elif suffix in (".csv", ".tsv"):
            mark = "," if suffix == ".csv" else "\t"
            head = list(rows[0]) if rows and isinstance(rows[0], dict) else ["a"]
            cells = [
                [str(r.get(k)) for k in head] if isinstance(r, dict) else [str(r)] for r in rows
            ]
            text = "\n".join(mark.join(map(str, line)) for line in [head, *cells])
        else:
            text = "\n".join(map(to_json, rows))
        data = text.encode("utf-8", "surrogatepass")
        path.write_bytes(gzip.compress(data) if path.name.endswith(".gz") else data)

    def flags(self, argv: list[str]) -> None:
        config = load_config(argv)
        check_file("ds_config", "ds_configs", config.ds_config)
        check_files([*config.data.train, *config.data.validation])

    def recipe(self, data: bytes) -> None:
        load_config(["--recipe", str(self.put("recipe.yaml", data))])

    def suite(self, data: bytes) -> None:
        from mipic_llm.evaluation.read import load_suite

        load_suite(str(self.put("suite.yaml", data)))

    def study(self, data: bytes) -> None:
        from mipic_llm.study.checks import check
        from mipic_llm.study.spec import read_study

        check(read_study(self.put("study.yaml", data)), self.folder, files=False)

    def deepspeed(self, data: bytes) -> None:
        from mipic_llm.runtime.ds_config import load_ds_config

        config = load_config(["--train.precision", "fp32"])
        load_ds_config(self.put("ds.json", data), config, world_size=1, hidden_size=32)

    def directory(self, case: tuple[str, bytes]) -> None:
        from mipic_llm.model.directory import read_model

        name, data = case
        shutil.rmtree(self.model)
        shutil.copytree(self.honest, self.model)
        beside = ["modules.json", "1_Pooling/config.json"] if name != "adapter_config.json" else []
        for other in {*beside, name}:
            path = self.model / other
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data if other == name else to_json(self.files[other]).encode())
        read_model(str(self.model))

    def manifest(self, data: bytes) -> None:
        from mipic_llm.data import token_cache
        from mipic_llm.runtime import checkpoint
        from mipic_llm.study.job import read_done

        folder = self.folder / "step-00000003"
        folder.mkdir(exist_ok=True)
        (folder / "config.yaml").write_bytes(b"")
        for name in (checkpoint.MANIFEST, token_cache.MANIFEST, "train.done.json"):
            (folder / name).write_bytes(data)
        checkpoint.damage(folder)
        token_cache.is_whole(folder)
        read_done(folder)

    def scores(self, data: bytes) -> None:
        from mipic_llm.report.plots import loss_parts
        from mipic_llm.report.scores import read_scores
        from mipic_llm.tracking.base import JsonlTracker

        path = self.put("metrics.jsonl", data)
        for read in (loss_parts, read_scores):
            with contextlib.suppress(UserError):
                read(path)
        JsonlTracker(path, resume_step=2).close()


class Hang(BaseException):
    """A case that took longer than LIMIT."""


def hang(*_: Any) -> None:
    raise Hang(f"a case took more than {LIMIT:.0f} seconds")


def fuzz(cases: int, number: int, only: str | None = None) -> dict[str, int]:
    """Run about so many cases. -> cases by reader. Raises what a reader raised, smallest first."""
    done: dict[str, int] = {}
    signal.signal(signal.SIGALRM, hang)
    with tempfile.TemporaryDirectory() as place:
        for name, share, strategy, read in Readers(Path(place)).all():
            if only in (None, name):
                share = 1.0 if only else share
                done[name] = run(name, read, strategy, max(1, round(share * cases)), number)
    return done


def run(name: str, read: Callable[[Any], Any], strategy: Any, cases: int, number: int) -> int:
    count = 0

    def case(value: Any) -> None:
        nonlocal count
        count += 1
        signal.setitimer(signal.ITIMER_REAL, LIMIT)
        try:
            with (
                contextlib.redirect_stdout(io.StringIO()),
                contextlib.redirect_stderr(io.StringIO()),
            ):
                read(value)
        except UserError as error:
            assert len(str(error)) < 2000, f"nobody reads such a line: {error}"
        except SystemExit as stop:  # --help, --print_config
            assert not stop.code, stop.code
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    case.__name__ = case.__qualname__ = f"fuzz_{name}"
    settled = settings(max_examples=cases, deadline=None, database=None, print_blob=False,
                       phases=[Phase.generate, Phase.shrink],
                       suppress_health_check=list(HealthCheck))  # fmt: skip
    seed(number)(settled(given(strategy)(case)))()
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="one reader: rows, recipe, flags, suite, study, deepspeed, "
                        "model, manifest or scores")  # fmt: skip
    args = parser.parse_args()
    began = time.monotonic()
    done = fuzz(args.cases, args.seed, args.only)
    print(f"{sum(done.values())} cases in {time.monotonic() - began:.0f} s, seed {args.seed}: "
          f"{', '.join(f'{name} {n}' for name, n in done.items())}")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
