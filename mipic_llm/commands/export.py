"""mipic export"""

from __future__ import annotations

from typing import Literal

from mipic_llm.config import Config, Section, load_config, need, opt, parse_point
from mipic_llm.errors import EXIT_DONE
from mipic_llm.export.uses import OF_BASE, OF_RUN

ABOUT = """Write portable models from a run, and check them by loading them again. One process.

  mipic export --output_dir RUN                  adapter of the newest checkpoint
  mipic export --output_dir RUN --merged         base and adapter in one model
  mipic export --output_dir RUN --point 64@3     a model cut after layer 3, 64 channels
  mipic export --output_dir RUN --point 64@3 --lens   the same, its vectors mapped onto layer 6's
  mipic export --output_dir RUN --bytes 16       the best size and precision in 16 bytes a vector
  mipic export --output_dir RUN --rotate pca     turned so that its prefixes keep more
  mipic export --model.name ID --rotate centred --pca_text FILE --to DIR
                                                 the same of a model that no run of ours trained;
                                                 likewise --point 64@3 --lens
  mipic export --output_dir RUN --merged --onnx  and as ONNX, with int8 weights too
  mipic export --output_dir RUN --point 64@3 --tracking.register NAME   into MLflow's registry"""


class Flags(Section, frozen=False):
    checkpoint: str = opt("auto", "checkpoint directory to export; auto = the finished model of "
                          "the run, else its newest complete checkpoint")  # fmt: skip
    merged: bool = opt(False, "also write a merged model (LoRA runs)")
    to: str | None = opt(None, "directory to write into; None = output_dir")
    point: str | None = opt(None, "write a model of this size, dim@layer: cut after the layer "
                            "(1-based), with the readout's first dim channels")  # fmt: skip
    layers: int | None = opt(None, "the layer of --point alone, at full width")
    dim: int | None = opt(None, "the dim of --point alone, at the last layer")
    bytes: int | None = opt(None, "write a model of the trained dim that, stored in float32, int8 "
        "or signs, scores best in at most so many bytes a vector, and quantization.json",
        ge=1)  # fmt: skip
    data: list[str] = opt([], "what --bytes is chosen on, as for evaluate; none = data.validation "
                          "of the run")  # fmt: skip
    lens: bool = opt(False, "with --point below the last layer: map the vectors onto those of the "
        "last layer, by a Dense module that is fitted on text without labels")  # fmt: skip
    rotate: Literal["none", "pca", "centred"] = opt("none", "pca: turn the vectors onto the "
        "principal axes of training text, by a Dense module; whole vectors keep their cosines; "
        "centred: likewise, and what all texts share comes last")  # fmt: skip
    pca_text: list[str] = opt([], "text that --rotate and --lens are fitted on; none = the run's "
                              "training data")  # fmt: skip
    onnx: bool = opt(False, "also write onnx/ of a whole model (--merged, --point or --rotate): "
                     "model.onnx and model_quantized.onnx")  # fmt: skip
    push: str | None = opt(None, "upload what was written to this model on the Hugging Face hub, "
                           "owner/name; made if it is not there")  # fmt: skip
    public: bool = opt(False, "make a new model on the hub public; else it is private")


def read_point(config: Config) -> None:
    """--point 64@3 as --layers 3 --dim 64. Raises UserError."""
    flags = config.extra
    if flags.point is not None:
        need(flags.layers is None and flags.dim is None, "give --point, or --layers and --dim")
        flags.layers, flags.dim, _ = parse_point(flags.point, "--point: ")


def main(argv: list[str]) -> int:
    config = load_config(argv, extra=Flags, about=ABOUT, uses=(*OF_RUN, *OF_BASE))
    read_point(config)
    from mipic_llm.export.run import export

    export(config)
    return EXIT_DONE
