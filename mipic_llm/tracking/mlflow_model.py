"""An exported model as a model of MLflow, in its sentence-transformers flavour, and as a version in
its registry. Beside mlflow_remote.py, which calls it, the only file that imports mlflow.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from mipic_llm.types import Judgement

CHAMPION, CANDIDATE = "champion", "candidate"  # aliases of versions
EXAMPLE = ["A small boat", "How do I reset my password?"]
ABOUT = (
    "Embedding models trained with mipic_llm. The alias champion is the version that is better "
    "than its base by more than chance, and than the champion before it; the newest other one is "
    "the candidate."
)
FIGURE, VALUE, ROWS = "mipic.figure", "mipic.value", "mipic.rows"  # tags of a version


class _Folder:
    """Stands for a SentenceTransformer where MLflow saves one: the directory is taken over file by
    file. sentence-transformers' own `save` would write its configuration anew, without our keys."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, path: str) -> None:
        shutil.copytree(self.folder, path, copy_function=_link)

    def modules(self) -> Iterator[Any]:
        return iter(())


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)  # a large model is not written twice
    except OSError:
        shutil.copy2(source, target)


def describe(folder: Path) -> dict[str, Any]:
    """What the directory of an export says of itself: width, dims, prompts, pooling, tokens."""

    def read(name: str) -> dict[str, Any]:
        path = folder / name
        return json.loads(path.read_text("utf-8")) if path.is_file() else {}

    own, pooling = read("config_sentence_transformers.json"), read("1_Pooling/config.json")
    dense = [json.loads(path.read_text("utf-8"))["out_features"]
             for path in sorted(folder.glob("*_Dense/config.json"))]  # fmt: skip
    width = (dense or [pooling["word_embedding_dimension"]])[-1]
    return {
        "width": width, "dims": own.get("matryoshka_dimensions") or [width],
        "layers": read("config.json").get("num_hidden_layers"),
        "pooling": pooling.get("pooling_mode"), "prompts": own.get("prompts") or {},
        "default_prompt": own.get("default_prompt_name"),
        "max_tokens": read("sentence_bert_config.json").get("max_seq_length"),
    }  # fmt: skip


def log_model(
    client: Any, run: Any, folder: Path, figures: Mapping[str, float], step: int
) -> tuple[str, dict[str, Any]]:  # fmt: skip
    """Log the export in `folder` as a model of `run`. -> (id of the model, what it says of itself).

    It takes texts, and as parameters prompt_name, truncate_dim (0 = whole) and gives unit vectors.
    figures: legal names and values at `step`, shown on the model's page.
    """
    import mlflow.sentence_transformers
    import numpy as np
    from mlflow.entities import LoggedModelOutput, Metric
    from mlflow.models import Model, ModelSignature
    from mlflow.types.schema import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec

    about, run_id = describe(folder), run.info.run_id
    signature = ModelSignature(
        Schema([ColSpec("string")]),
        Schema([TensorSpec(np.dtype("float32"), (-1, about["width"]))]),
        ParamSchema([ParamSpec("prompt_name", "string", about["default_prompt"]),
                     ParamSpec("truncate_dim", "integer", about["width"]),
                     ParamSpec("normalize_embeddings", "boolean", True)]),
    )  # fmt: skip
    told = {key: value for key, value in about.items() if value is not None}
    model = client.create_logged_model(
        run.info.experiment_id, name=folder.name, source_run_id=run_id, model_type="embedding",
        params={key: value if isinstance(value, str) else json.dumps(value)
                for key, value in told.items() if value != {}},
    )  # fmt: skip
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".mlflow-") as place:
        path = Path(place) / "model"
        mlflow.sentence_transformers.save_model(
            _Folder(folder), str(path), signature=signature, input_example=EXAMPLE, metadata=told,
            mlflow_model=Model(artifact_path=model.artifact_location, run_id=run_id,
                               model_uuid=model.model_id, model_id=model.model_id),
            # Told, not inferred: MLflow would load the model in another process to find them.
            pip_requirements=[f"{name}=={metadata.version(name).partition('+')[0]}" for name in
                              ("sentence-transformers", "transformers", "torch")],
        )  # fmt: skip
        client.log_model_artifacts(model.model_id, str(path))
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step)])
    now = int(time.time() * 1000)
    client.log_batch(run_id, metrics=[Metric(name, value, now, step, model_id=model.model_id)
                                      for name, value in figures.items()])  # fmt: skip
    return model.model_id, about


def register(
    client: Any, name: str, model_id: str, run_id: str, about: Mapping[str, Any], judged: Judgement
) -> str:
    """A version of the registered model `name`, with an alias. -> a line on both.

    champion: where `judged` says that the model is better than the one before training, unless the
    champion of now has as high a value of the same figure on as many rows; else candidate.
    """
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, description=ABOUT)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    alias, why = CHAMPION if judged.better else CANDIDATE, judged.words
    tags = {"dims": json.dumps(about["dims"]), "width": str(about["width"])}
    if judged.value is not None:
        tags |= {FIGURE: judged.figure, VALUE: repr(judged.value), ROWS: str(judged.n)}
    try:
        now = client.get_model_version_by_alias(name, CHAMPION)
    except MlflowException:  # there is none
        now = None
    if alias == CHAMPION and now is not None:
        same = all(now.tags.get(key) == tags.get(key) for key in (FIGURE, ROWS))
        if same and judged.value is not None and float(now.tags[VALUE]) >= judged.value:
            alias = CANDIDATE
            old, new = 100 * float(now.tags[VALUE]), 100 * judged.value
            why += f"; version {now.version} stays champion with {old:.2f} against {new:.2f}"
    # Of a file, MLflow 3.17 looks for models:/ID in the store of its global setting.
    source = f"models:/{model_id}"
    if not client.tracking_uri.startswith("http"):
        source = client.get_logged_model(model_id).artifact_location
    version = client.create_model_version(
        name, source, run_id, tags=tags, model_id=model_id,
        description=f"{about['width']} channels (trained prefixes: "
        f"{', '.join(map(str, about['dims']))}). {alias}: {why}.",
    )  # fmt: skip
    if not client.tracking_uri.startswith("http"):  # a server writes this itself
        link = json.dumps([{"name": name, "version": version.version}])
        client.set_logged_model_tags(model_id, {"mlflow.modelVersions": link})
    client.set_registered_model_alias(name, alias, version.version)
    return f"models:/{name}@{alias} (version {version.version}): {why}"
