"""An export as ONNX, and as ONNX with int8 weights: one graph from tokens to unit vectors."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, normalize

from mipic_llm.data.tokenise import TextEncoder, pad
from mipic_llm.errors import UserError, one_line
from mipic_llm.export.portable import EmbeddingSpec, write_json
from mipic_llm.export.verify import compare, reload_vectors
from mipic_llm.export.write import replacing
from mipic_llm.model.dense import make_dense
from mipic_llm.model.load import plain_layout
from mipic_llm.model.pooling import readout

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
FILES = {"float32": "model.onnx", "int8": "model_quantized.onnx"}  # where transformers.js looks
WHOLE = 1 << 30  # bytes of weights in one file with the graph; a protobuf file ends at 2 GiB
TOLERANCE = 1e-4  # other matrix kernels than torch's, in float32


class _Graph(nn.Module):
    """input_ids and attention_mask -> last_hidden_state (what sentence-transformers' ONNX backend
    pools itself) and sentence_embedding: pooled, through the Dense modules, of unit length."""

    def __init__(self, model: Any, spec: EmbeddingSpec) -> None:
        super().__init__()
        self.model, self.pooling = model, spec.pooling
        self.dense = make_dense(spec.dense, torch.float32)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        more = {"use_cache": False} if hasattr(self.model.config, "use_cache") else {}
        out = self.model(input_ids=input_ids, attention_mask=attention_mask, **more)
        h_STD = out.last_hidden_state
        z_SD = self._readout(h_STD, attention_mask.bool())
        z_SD = z_SD if self.dense is None else self.dense(z_SD)
        return h_STD, normalize(z_SD, dim=-1)

    def _readout(self, h_STD: Tensor, mask_ST: Tensor) -> Tensor:
        """As model/pooling.py, where one token is pooled by a gather: indexing by numbers of rows
        would fix the batch of the trace in the graph."""
        if self.pooling == "mean":
            return readout(h_STD, mask_ST, "mean")
        if self.pooling == "cls":
            at_S = mask_ST.int().argmax(1)
        else:
            at_S = mask_ST.shape[1] - 1 - mask_ST.flip(1).int().argmax(1)
        return h_STD.gather(1, at_S.view(-1, 1, 1).expand(-1, 1, h_STD.shape[2])).squeeze(1)


def check_packages() -> None:
    """UserError that names what to install."""
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise UserError(f"onnx: {' and '.join(missing)} not installed; pip install "
                        f"{' '.join(PACKAGES)}")  # fmt: skip


def write_onnx(
    folder: Path, spec: EmbeddingSpec, encoder: TextEncoder, texts: Sequence[str]
) -> dict[str, Any]:
    """Write folder/onnx of the whole model in folder: FILES, and parity.json.

    encoder: bare (no prompts). The session's vectors of the texts, in one padded batch, are
    compared with those of the reloaded model, text by text: float32 within TOLERANCE at every dim;
    of int8 the cosines are reported. -> what parity.json holds. Raises UserError where a package is
    missing or the class cannot be traced, ExportError where vectors differ.
    """
    if not spec.include_prompt and any(spec.prompts.values()):
        raise UserError("onnx: the pooling leaves the tokens of prompts out, which a graph of ids "
                        "and mask does not know; leave --onnx out")  # fmt: skip
    check_packages()
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, dtype=torch.float32, trust_remote_code=(
        spec.trust_remote_code))  # fmt: skip
    graph = _Graph(plain_layout(model).eval(), spec).eval()
    ids, mask = pad(encoder.ids(texts), encoder.pad_id, encoder.padding_side)
    with replacing(folder / "onnx") as fresh:
        with _quiet():
            _trace(graph, ids[:2], mask[:2].long(), fresh / FILES["float32"], type(model).__name__)
            _quantise(fresh / FILES["float32"], fresh / FILES["int8"])
        ours_ND = reload_vectors(folder, texts, spec, loader="automodel", dtype=torch.float32)
        whole_ND, small_ND = (_run(fresh / name, ids, mask) for name in FILES.values())
        report: dict[str, Any] = {
            "onnx": compare(ours_ND, whole_ND, spec.dims, TOLERANCE, "ONNX"),
            "int8: cosine with float32, mean and least": {
                str(d): [round(float(f(cosine_similarity(small_ND[:, :d], ours_ND[:, :d]))), 5)
                         for f in (torch.mean, torch.min)] for d in spec.dims},
        }  # fmt: skip
        write_json(fresh / "parity.json", report)
    return report


def _trace(graph: nn.Module, ids: Tensor, mask: Tensor, path: Path, kind: str) -> None:
    shape = {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens")}
    try:
        program = torch.onnx.export(
            graph, (ids, mask), dynamo=True, verbose=False,
            input_names=["input_ids", "attention_mask"],
            output_names=["last_hidden_state", "sentence_embedding"],
            dynamic_shapes={"input_ids": shape, "attention_mask": shape},
        )  # fmt: skip
    except Exception as error:  # of torch's exporter, of the model's own code
        raise UserError(f"onnx: torch cannot export {kind}: {one_line(error)}") from error
    assert program is not None
    size = sum(p.numel() * p.element_size() for p in graph.parameters())
    program.save(str(path), external_data=size > WHOLE)
    _name_weights(path)


def _quantise(path: Path, to: Path) -> None:
    """Weights to int8, per tensor; activations are quantised when it runs."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(path, to, weight_type=QuantType.QInt8,
                     use_external_data_format=_weights_of(path).is_file())  # fmt: skip
    _name_weights(to)


def _weights_of(path: Path) -> Path:
    """The file of weights beside a graph, by the name under which optimum (and through it
    sentence-transformers) and transformers.js fetch it from the hub."""
    return path.with_name(f"{path.name}_data")


def _name_weights(path: Path) -> None:
    """Weights that torch or onnxruntime wrote beside a graph, as GRAPH.data, get that name."""
    import onnx

    written = path.with_name(f"{path.name}.data")
    if written.is_file():
        onnx.save_model(onnx.load(str(path)), str(path), save_as_external_data=True,
                        location=_weights_of(path).name)  # fmt: skip
        written.unlink()


def _run(path: Path, ids: Tensor, mask: Tensor) -> Tensor:
    """(N, D) sentence_embedding of the file in onnxruntime, on CPU."""
    import onnxruntime

    feed = {"input_ids": ids.numpy(), "attention_mask": mask.long().numpy()}
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return torch.from_numpy(session.run(["sentence_embedding"], feed)[0])
    except Exception as error:  # an operator or a shape that it does not take
        raise UserError(f"onnx: onnxruntime cannot run {path.name}: {one_line(error)}") from error


@contextmanager
def _quiet():
    """torch's exporter and the quantiser warn of what is not the user's."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
