"""In containers and on clusters: no name, no home, no place to write, limits."""

from __future__ import annotations

import errno
import os
import pwd
import stat
import subprocess
import sys
import tempfile

import deepspeed
import pytest
import torch
from huggingface_hub import constants
from ranks import ROOT
from tiny_models import few, tiny_bert

from mipic_llm import hub, launched
from mipic_llm.commands.run import run_main
from mipic_llm.config import load_config
from mipic_llm.errors import EXIT_USER_ERROR, UserError
from mipic_llm.runtime.start import start
from mipic_llm.training import caches
from mipic_llm.training.loop import train
from mipic_llm.training.output import claim_output


@pytest.fixture(scope="module")
def flags(tmp_path_factory) -> list[str]:
    place = tmp_path_factory.mktemp("place")
    return ["--model.name", str(tiny_bert(place / "base")), "--objective.dims", "8", "32",
            "--data.train", str(few(place)), "--data.validation", "none", "--train.batch_size", "4",
            "--train.max_steps", "1", "--train.selfcheck", "false", "--export.rehearse", "false",
            "--tracking.mlflow", "off"]  # fmt: skip


def test_a_user_without_a_name_and_a_home(tmp_path, flags, monkeypatch, capsys):
    """As on OpenShift, where a container runs as any number. A run once ended at its export, when
    all was trained."""

    def nobody(_uid):
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.setattr(caches, "CACHE_ROWS", 1)
    for name in ("HOME", "XDG_CACHE_HOME", "LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    assert train(load_config([*flags, "--output_dir", str(tmp_path / "out")])) == 0
    assert (tmp_path / "out" / "adapter" / "README.md").is_file()
    said = capsys.readouterr().out
    assert "this user has none; set HOME, or give another directory; texts are tok" in said
    with pytest.raises(UserError, match="this user has none"):
        train(load_config([*flags, "--data.stream", "true", "--output_dir", str(tmp_path / "2")]))


def told(main, capsys) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        run_main(lambda argv: main(), [])
    assert stopped.value.code == EXIT_USER_ERROR
    text = capsys.readouterr().err
    assert text.startswith("error: ") and text.count("\n") == 1
    return text


def test_what_a_process_lacks_is_one_line(tmp_path, monkeypatch, capsys):
    def refused(kind):
        raise kind

    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "no")])
    assert "environment variable TMPDIR" in told(tempfile.gettempdir, capsys)
    monkeypatch.undo()
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert "that you stand in is gone" in told(os.getcwd, capsys)
    monkeypatch.chdir(tmp_path)
    for kind, what in (
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
        (RuntimeError("[device.cc:186] -1 vs -1. Too many open files"), "ulimit -n"),
        (OSError(errno.EFBIG, "File too large", "x"), "x: File too large"),
    ):
        assert what in told(lambda kind=kind: refused(kind), capsys)


def test_the_lock_of_a_shared_directory_is_of_all_who_share_it(tmp_path, flags):
    """Else a run of one user of a group cannot be gone on with by another."""
    config = load_config([*flags, "--output_dir", str(tmp_path)])
    before = os.umask(0o002)
    try:
        claim_output(config).close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / ".lock").stat().st_mode) == 0o664
    (tmp_path / ".lock").unlink()
    (tmp_path / ".lock").mkdir()
    with pytest.raises(UserError, match=r"cannot write to .*/\.lock: Is a directory"):
        claim_output(config)


OF_TWO = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1"}
BROKEN = {
    "WORLD_SIZE": ("two", "WORLD_SIZE: 'two' is no number"),
    "RANK": ("2", "RANK is 2, and WORLD_SIZE 2"),
    "LOCAL_RANK": ("4", "LOCAL_RANK is 4, and this machine shows 4 GPU"),
    "MASTER_ADDR": ("", "WORLD_SIZE is 2, and MASTER_ADDR is not set"),
    "MASTER_PORT": (None, "WORLD_SIZE is 2, and MASTER_PORT is not set"),
    "OMPI_COMM_WORLD_LOCAL_RANK": ("0", "LOCAL_RANK is 1, and OMPI_COMM_WORLD_LOCAL_RANK, of mpi"),
}


@pytest.fixture
def ranks_of(monkeypatch):
    def put(**env: str | None) -> None:
        for name in (*OF_TWO, *BROKEN):
            monkeypatch.delenv(name, raising=False)
        for name, value in env.items():
            if value is not None:
                monkeypatch.setenv(name, value)

    return put


@pytest.mark.parametrize("name", BROKEN)
def test_ranks_that_cannot_meet_are_refused_by_name(ranks_of, name):
    """DeepSpeed asks MPI for what lacks, and fails in an import of a package nobody has."""
    ranks_of(**OF_TWO)
    launched.check(gpus=4)
    value, what = BROKEN[name]
    ranks_of(**OF_TWO | {name: value})
    with pytest.raises(UserError, match=f"environment:? {what}"):
        launched.check(gpus=4)


def test_one_rank_below_a_job_of_several_is_the_first(ranks_of, tmp_path, flags, capsys):
    """Its error was told by nobody, and nobody built a cache."""
    ranks_of(RANK="3", LOCAL_RANK="3", WORLD_SIZE="")

    def wrong():
        raise UserError("wrong")

    assert told(wrong, capsys) == "error: wrong\n"
    more = ["--data.token_cache", str(tmp_path / "tokens"), "--output_dir", str(tmp_path / "out")]
    assert train(load_config([*flags, *more])) == 0
    assert list((tmp_path / "tokens").glob("*/manifest.json"))


def test_ranks_that_do_not_meet_are_one_line(ranks_of, monkeypatch):
    def late(*_args, **_more):
        raise torch.distributed.DistStoreError("Timed out after 1801 seconds. 1/2 clients joined.")

    ranks_of(**OF_TWO)
    monkeypatch.setattr(deepspeed, "init_distributed", late)
    with pytest.raises(UserError, match="the 2 ranks did not meet at a, port 1: Timed out .* 1/2"):
        start()


def test_a_process_without_streams_says_nothing_and_goes_on(tmp_path):
    """Its first line ended a run; and a file of the run would get the number of its output."""
    code = f"""\
import sys
from mipic_llm.commands.run import run_main
def main(argv):
    print("a line")
    sys.stdout.flush()
    sys.stderr.write("another")
    with open({str(tmp_path / "file")!r}, "w") as file:
        file.write(str([file.fileno() > 2, sys.stdin.read()]))
    return 7
run_main(main, [])
"""
    done = subprocess.run(["sh", "-c", '"$0" -c "$1" <&- >&- 2>&-', sys.executable, code], cwd=ROOT)
    assert done.returncode == 7
    assert (tmp_path / "file").read_text() == "[True, '']"


class Hub:
    """The client of the hub's library, and how often it was asked."""

    def __init__(self, monkeypatch):
        self.asked, self.there = 0, False
        monkeypatch.setattr("huggingface_hub.get_session", lambda: self)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub, "_away", False)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)

    def head(self, _url, timeout):
        self.asked += 1
        if not self.there:
            raise ConnectionError("no route to host")


def test_a_hub_that_does_not_answer_is_told_once_and_asked_again(monkeypatch, capsys):
    """Its library asks six times for each file: a cached model took minutes."""
    found = Hub(monkeypatch)
    hub.ask_hub()
    assert constants.is_offline_mode() and os.environ["HF_HUB_OFFLINE"] == "1"
    assert "does not answer (no route to host); what its cache here" in capsys.readouterr().out
    hub.ask_hub()
    assert constants.is_offline_mode() and found.asked == 2 and not capsys.readouterr().out
    found.there = True
    hub.ask_hub()
    assert not constants.is_offline_mode() and "HF_HUB_OFFLINE" not in os.environ


@pytest.mark.parametrize("chosen", ["0", "1"])
def test_a_user_who_has_decided_is_not_overruled(monkeypatch, chosen):
    found = Hub(monkeypatch)
    monkeypatch.setenv("HF_HUB_OFFLINE", chosen)
    hub.ask_hub()
    assert not found.asked and os.environ["HF_HUB_OFFLINE"] == chosen
