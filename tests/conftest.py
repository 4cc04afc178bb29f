"""What holds for all tests and for the processes they start: set before torch is imported."""

import gc
import os

import pytest

# One thread each: two workers of two threads on two cores wait for one another, and a run of tiny
# models took ten times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Runs of the tests go to no MLflow store, but where a test says so: the default is a file in the
# directory that they run in, the checkout.
os.environ.setdefault("MLFLOW_TRACKING_URI", "off")


def pytest_collection_finish() -> None:
    """DeepSpeed and the reload of an export collect garbage: not among all that is imported."""
    gc.freeze()


def pytest_runtest_makereport(call) -> None:
    """Nor among what a test that took its time has imported and left: a fifth of test_api's time
    was the collections of later runs."""
    if call.duration > 0.3:
        gc.collect()
        gc.freeze()


@pytest.fixture
def steps_alone(monkeypatch) -> None:
    """Runs of this process end with their last step and evaluation, without an export and its
    proof, tables and pictures: two thirds of a short run, for tests of what comes before."""
    from mipic_llm.training import loop

    monkeypatch.setattr(loop, "export", lambda *_: None)
    monkeypatch.setattr(loop, "report", lambda *_: None)


# The longest first, so that none is left for the end, when one worker has nothing else to do.
LONG = ("distributed", "package", "benchmarks", "api", "stages", "resume", "readme", "guards",
        "study", "everything", "gradcache", "packed_training", "blocks", "fused", "golden",
        "cluster", "notebook", "stops", "stand_in", "model_classes", "merge",
        "export_forms")  # fmt: skip


def pytest_configure(config) -> None:
    if hasattr(config.option, "loadscopereorder"):  # xdist: else files of many tests go first
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items) -> None:
    places = {f"test_{name}": place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))
