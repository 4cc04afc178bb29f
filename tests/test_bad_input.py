"""Every mistake gets one line: what, where, what to do; exit code 2; nothing written or lost."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from ranks import ROOT, run_ranks
from tiny_models import tiny_bert, tiny_qwen3
from transformers import MPNetConfig, MPNetModel

from mipic_llm.commands.run import run_main
from mipic_llm.config import load_config
from mipic_llm.errors import EXIT_USER_ERROR

GOOD = {"anchor": "a small boat", "positive": "a little ship", "negative": "a red car"}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    tiny_bert(folder / "bert")
    tiny_qwen3(folder / "qwen3")
    tiny_bert(folder / "mpnet")
    shape = MPNetConfig(vocab_size=304, hidden_size=32, num_hidden_layers=4, num_attention_heads=4,
                        intermediate_size=64)  # fmt: skip
    MPNetModel(shape, add_pooling_layer=False).save_pretrained(folder / "mpnet")
    (folder / "weightless").mkdir()
    for path in (folder / "bert").iterdir():
        if path.is_file() and path.suffix != ".safetensors":
            (folder / "weightless" / path.name).write_bytes(path.read_bytes())
    rows = [json.dumps({k: f"{v} {i}" for k, v in GOOD.items()}) for i in range(16)]
    files = {
        "good.jsonl": "\n".join(rows),
        "empty.jsonl": "",
        "broken.jsonl": "\n".join([*rows[:2], '{"anchor": "a", "pos', *rows[3:]]),
        "columns.jsonl": json.dumps({"first": "a", "second": "b"}),
        "types.jsonl": "\n".join([*rows[:2], json.dumps({**GOOD, "positive": 7}), *rows[3:]]),
        "blank.jsonl": "\n".join([*rows[:2], json.dumps({**GOOD, "anchor": "  "}), *rows[3:]]),
        "texts.txt": "\n".join(f"The number of this line is {i}." for i in range(16)),
        "broken.json": "{",
        "conflict.json": json.dumps({"train_micro_batch_size_per_gpu": 3,
                                     "zero_optimization": {"stage": 2}}),
    }  # fmt: skip
    for name, text in files.items():
        (folder / name).write_text(text + "\n")
    (folder / "other_run").mkdir()
    (folder / "other_run" / "config.yaml").write_text("seed: 1\n")
    (folder / "file").write_text("not a directory\n")
    return folder


# Flags (@ is the folder of the fixture), and what the line must say.
CASES = {
    "missing file": (["--data.train", "@/nowhere.jsonl"], "nowhere.jsonl"),
    "empty file": (["--data.train", "@/empty.jsonl"], "empty.jsonl"),
    "broken JSON": (["--data.train", "@/broken.jsonl"], "3"),
    "columns": (["--data.train", "@/columns.jsonl"], "first"),
    "types": (["--data.train", "@/types.jsonl"], "positive"),
    "blank": (["--data.train", "@/blank.jsonl"], "anchor"),
    "unknown flag": (["--train.batchsize", "4"], "train.batch_size"),
    "unknown recipe": (["--recipe", "qwen5"], "qwen5"),
    "dims order": (["--objective.dims", "16", "8", "32"], "objective.dims"),
    "dims above": (["--objective.dims", "16", "32", "64"], "32"),
    "dims without width": (["--objective.dims", "8", "16"], "32"),
    "layers": (["--objective.dims", "16", "32", "--sia.layers", "2", "9"], "sia.layers"),
    "ladder": (["--pic.ladder", "16@3", "8@2", "32@4"], "pic.ladder"),
    "ratios": (["--sia.ratios", ".2", ".3", "--objective.dims", "16", "32"], "sia.ratios"),
    "alpha": (["--objective.alpha", "1.5"], "objective.alpha"),
    "tau": (["--objective.tau", "0"], "objective.tau"),
    "temperature": (["--sia.temperature", "-1"], "sia.temperature"),
    "batch of one": (["--train.batch_size", "1"], "train.batch_size"),
    "twin views": (
        ["--model.name", "@/qwen3", "--data.train", "@/texts.txt"], "view_noise"
    ),
    "ds missing": (["--ds_config", "@/nowhere.json"], "nowhere.json"),
    "ds invalid": (["--ds_config", "@/broken.json"], "broken.json"),
    "ds conflict": (["--ds_config", "@/conflict.json"], "train_micro_batch_size_per_gpu"),
    "no weights": (["--model.name", "@/weightless"], "weights"),
    "no model": (["--model.name", "@/nowhere"], "nowhere"),
    "output is a file": (["--output_dir", "@/file/run"], "output_dir"),
    "output of another run": (["--output_dir", "@/other_run"], "--overwrite"),
    "nothing to resume": (["--train.resume", "auto"], "no complete checkpoint"),
    "attention that cannot be exchanged": (
        ["--model.name", "@/mpnet", "--model.attn", "varlen"], "MPNetModel"
    ),
    "no flash": (["--model.attn", "flash_attention_2"], "flash"),
}  # fmt: skip


def arguments(place: Path, out: Path, flags: list[str]) -> list[str]:
    base = {
        "--model.name": str(place / "bert"), "--objective.dims": "none", "--pic.ladder": "none",
        "--sia.layers": "none", "--sia.ratios": "none", "--data.train": str(place / "good.jsonl"),
        "--data.validation": "none", "--data.max_length": "16", "--train.batch_size": "4",
        "--tracking.mlflow": "off", "--output_dir": str(out),
    }  # fmt: skip
    plain = [word for pair in base.items() for word in pair]
    return [*plain, *(flag.replace("@", str(place), 1) if flag.startswith("@") else flag
                      for flag in flags)]  # fmt: skip


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}


def train(argv: list[str]) -> int:
    from mipic_llm.training.loop import train

    return train(load_config(argv))


@pytest.mark.parametrize("case", CASES)
def test_one_line_and_code_2(place, tmp_path, capsys, case):
    flags, words = CASES[case]
    before = snapshot(place)
    with pytest.raises(SystemExit) as stopped:
        run_main(train, arguments(place, tmp_path / "out", flags))
    assert stopped.value.code == EXIT_USER_ERROR
    lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    assert len(lines) == 1 and words in lines[0], lines
    assert len(lines[0]) < 400
    assert snapshot(place) == before
    assert not (tmp_path / "out" / "adapter").exists()


def test_the_good_rows_are_good(place):
    """Else every case above could fail for a reason of its own."""
    from mipic_llm.training import setup

    config, _, data = setup.open_run(load_config(arguments(place, place / "unused", [])))
    assert data.plan.steps_per_epoch == 4 and config.objective.dims == [16, 32]


def test_bf16_where_a_gpu_only_emulates_it(place, monkeypatch):
    import torch

    from mipic_llm.errors import UserError
    from mipic_llm.model import load
    from mipic_llm.training import setup

    asked = load_config(arguments(place, place / "unused", []))
    _, source, _ = setup.open_run(asked)
    asked = asked.replace(**{"train.precision": None})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    # torch's own answer for such a GPU: not itself, but emulated
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: (
        including_emulation))  # fmt: skip
    with pytest.raises(UserError, match="--train.precision fp32"):
        load.check_precision("bf16")
    assert setup.resolve_for(asked, source).train.precision == "fp32"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    assert setup.resolve_for(asked, source).train.precision == "bf16"


def test_a_process_prints_the_line_and_nothing_else(place, tmp_path):
    argv = arguments(place, tmp_path / "out", ["--data.train", str(place / "broken.jsonl")])
    # What a start() in this process left: its port is taken.
    ranks = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    clean = {k: v for k, v in os.environ.items() if k not in ranks}
    command = [sys.executable, str(ROOT / "launch" / "train.py"), *argv]
    done = subprocess.run(
        command, capture_output=True, text=True, env=clean, cwd=ROOT, check=False
    )  # fmt: skip
    assert done.returncode == EXIT_USER_ERROR
    assert "Traceback" not in done.stderr
    assert done.stderr.count("error: ") == 1 and "line 3" in done.stderr


def test_a_port_that_is_taken(place, tmp_path):
    """Several ranks get one line; one rank of a launcher does not need the port at all."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        for world, words in (("2", "--master_port"), ("1", "line 3")):
            argv = arguments(place, tmp_path / world, ["--data.train", str(place / "broken.jsonl")])
            script = ROOT / "launch" / "train.py"
            code, said = run_ranks(1, script, argv, WORLD_SIZE=world, MASTER_PORT=port)
            assert code == EXIT_USER_ERROR, said[-2000:]
            assert words in said and "Traceback" not in said


def test_two_ranks_say_it_once(place, tmp_path):
    argv = arguments(place, tmp_path / "out", ["--output_dir", str(place / "other_run")])
    code, text = run_ranks(2, ROOT / "launch" / "train.py", argv)
    assert code == EXIT_USER_ERROR
    assert len(re.findall(r"^error(?: \(rank 1\))?: ", text, re.M)) == 1  # of whoever is first
    assert "Traceback" not in text
