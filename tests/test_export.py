"""Exports reload in transformers, peft and sentence-transformers with the live model's vectors."""

from __future__ import annotations

import json
import os
import stat
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from tiny_models import SENTENCES, tiny_bert, tiny_qwen3, tiny_xlmr
from torch.nn.functional import normalize

from mipic_llm.config import load_config
from mipic_llm.data.tokenise import TextEncoder, pad
from mipic_llm.errors import UserError
from mipic_llm.export import verify
from mipic_llm.export.fitted import still_here
from mipic_llm.export.live import Proof, export_model
from mipic_llm.export.portable import make_spec
from mipic_llm.export.tokenizer_file import ODD
from mipic_llm.export.verify import compare, reload_vectors, rounding_limits
from mipic_llm.export.write import (
    ExportError,
    check_weights,
    merge_adapter,
    replacing,
    write_adapter,
    write_merged,
)
from mipic_llm.model.dense import Dense, write_dense
from mipic_llm.training import setup

TEXTS = [*SENTENCES[:5], "Yes.", SENTENCES[5] + " " + SENTENCES[6]]
LOADERS = ["automodel", "peft", "sentence-transformers"]
ADAPTER_FILES = {
    "adapter_config.json", "adapter_model.safetensors", "modules.json", "README.md",
    "sentence_bert_config.json", "config_sentence_transformers.json", "1_Pooling/config.json",
    "2_Normalize/config.json", "tokenizer.json", "tokenizer_config.json",
}  # fmt: skip
CASES = {
    "bert": (tiny_bert, {}),
    "xlmr": (tiny_xlmr, {}),
    "qwen3": (tiny_qwen3, {"appends_eos": True}),
    "qwen3-no-eos": (tiny_qwen3, {"appends_eos": False}),
}
KINDS = list(CASES)


CODE = """
from transformers import BertConfig, BertModel


class OwnConfig(BertConfig):
    model_type = "own-bert"


class OwnModel(BertModel):
    config_class = OwnConfig

    def forward(self, *args, **kwargs):
        out = super().forward(*args, **kwargs)
        out.last_hidden_state = out.last_hidden_state.roll(1, -1) * 2
        return out
"""


def with_code_of_its_own(folder: Path) -> Path:
    """A model whose class is in its directory."""
    tiny_bert(folder)
    (folder / "own_code.py").write_text(CODE)
    path = folder / "config.json"
    config = json.loads(path.read_text()) | {"model_type": "own-bert", "auto_map": {
        "AutoConfig": "own_code.OwnConfig", "AutoModel": "own_code.OwnModel"}}  # fmt: skip
    path.write_text(json.dumps(config))
    return folder


CASES["own-code"] = (with_code_of_its_own, {})
TRUST = ("--model.trust_remote_code", "true")


class Trained:
    """A model with LoRA weights that are not zero, its spec, and its own vectors."""

    def __init__(self, folder: Path, case: str, *flags: str) -> None:
        make, options = CASES[case]
        self.base = Path(make(folder / "base", **options) or folder / "base")
        argv = ["--model.name", str(self.base), "--objective.dims", "8", "16", "32",
                "--data.max_length", "24", "--data.validation", "none", "--tracking.mlflow", "off",
                "--output_dir", str(folder / "out"), *flags]  # fmt: skip
        self.config, self.source, data = setup.open_run(load_config(argv))
        stage = {"zero_optimization": {"stage": 0}}
        self.module = setup.build_module(self.config, self.source, stage, False).eval()
        torch.manual_seed(0)
        for name, parameter in self.module.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.2)
        own = data.encoder
        self.encoder = TextEncoder(own.tokenizer, own.max_length, append_eos_id=own.append_eos_id,
                                   prompts={}, padding_side=own.padding_side)  # fmt: skip
        self.spec = make_spec(self.config, self.source, own)

    def state(self) -> dict[str, torch.Tensor]:
        return {
            k.removeprefix("backbone.model."): v.detach().clone()
            for k, v in self.module.named_parameters()
            if v.requires_grad and k.startswith("backbone.")
        }

    def vectors(self) -> torch.Tensor:
        """All texts in one padded batch: the reloads run one by one, without padding."""
        ids, mask = pad(self.encoder.ids(TEXTS, "query"), self.encoder.pad_id,
                        self.encoder.padding_side)  # fmt: skip
        assert not mask.all(), "no padding: the test would prove too little"
        with torch.no_grad():
            return self.module(ids, mask, layers=(self.module.backbone.n_layers,))[0].float()

    def write(self, folder: Path) -> Path:
        peft_config = self.module.backbone.model.peft_config["default"]
        write_adapter(folder, self.state(), peft_config, self.spec)
        return folder


def in_backbone(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"model.{name}": value for name, value in state.items()}


@pytest.mark.parametrize(
    "case, side",
    [*((case, "right") for case in KINDS), ("qwen3", "left"), ("qwen3-no-eos", "left")],
)
def test_adapter_gives_the_live_vectors(tmp_path, case, side):
    trained = Trained(tmp_path, case, "--model.padding_side", side)
    live = trained.vectors()
    with torch.no_grad(), trained.module.backbone.model.disable_adapter():
        assert (trained.vectors() - live).abs().max() > 1e-2, "the adapter does nothing"
    folder = trained.write(tmp_path / "adapter")
    for loader in LOADERS:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = reload_vectors(folder, TEXTS, trained.spec, loader=loader, dtype=torch.float32)
        compare(live, found, trained.spec.dims, 1e-5, loader)
        texts = [str(w.message) for w in caught]
        assert not [t for t in texts if "missing" in t.lower() or "adapter" in t.lower()], texts


def test_a_merge_that_changes_the_vectors_is_refused(tmp_path, monkeypatch):
    """As of Zamba2, whose layers share weights: every form of an adapter begins with a merge."""
    trained = Trained(tmp_path, "bert")
    adapter = trained.write(tmp_path / "adapter")
    own = LoraLinear.get_delta_weight
    twice = lambda self, name: 1.05 * own(self, name)  # noqa: E731
    monkeypatch.setattr(LoraLinear, "get_delta_weight", twice)
    with pytest.raises(UserError, match="cannot be merged into BertModel.*; use the adapter"):
        merge_adapter(trained.spec, adapter, torch.float32)


@pytest.mark.parametrize("case", KINDS)
def test_merged_gives_the_live_vectors(tmp_path, case):
    trained = Trained(tmp_path, case)
    adapter = trained.write(tmp_path / "adapter")
    merged = merge_adapter(trained.spec, adapter, torch.float32)
    rounded = dict(merge_adapter(trained.spec, adapter, torch.bfloat16).named_parameters())
    for name, weight in merged.named_parameters():  # rounded once, when all is added
        assert torch.equal(rounded[name], weight.bfloat16()), name
    write_merged(tmp_path / "merged", merged, trained.spec)
    for loader in ("automodel", "sentence-transformers"):
        found = reload_vectors(
            tmp_path / "merged", TEXTS, trained.spec, loader=loader, dtype=torch.float32
        )
        compare(trained.vectors(), found, trained.spec.dims, 1e-5, loader)
    settings = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert settings["is_matryoshka"] is True
    assert settings["matryoshka_dimensions"] == [8, 16, 32]
    assert settings["torch_dtype"] == settings["dtype"] == "float32"  # of transformers 4
    assert ("rope_theta" in settings) == case.startswith("qwen3")


def test_left_padding_of_an_encoder_is_refused(tmp_path):
    with pytest.raises(UserError, match="padding_side.*use right"):
        Trained(tmp_path, "bert", "--model.padding_side", "left")


def test_truncate_dim_in_sentence_transformers(tmp_path):
    from sentence_transformers import SentenceTransformer

    trained = Trained(tmp_path, "bert")
    folder = trained.write(tmp_path / "adapter")
    model = SentenceTransformer(str(folder), truncate_dim=8, device="cpu")
    found = torch.as_tensor(model.encode(TEXTS, normalize_embeddings=True))
    assert found.shape == (len(TEXTS), 8)
    assert (found - normalize(trained.vectors()[:, :8], dim=1)).abs().max() < 1e-5


@pytest.mark.parametrize("case", KINDS)
def test_files(tmp_path, case):
    trained = Trained(tmp_path, case, "--data.query_prompt", "query: ")
    folder = trained.write(tmp_path / "adapter")
    files = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert files >= ADAPTER_FILES
    settings = json.loads((folder / "adapter_config.json").read_text())
    assert settings["task_type"] == "FEATURE_EXTRACTION" and settings["inference_mode"] is True
    assert Path(settings["base_model_name_or_path"]).resolve() == trained.base.resolve()
    st = json.loads((folder / "config_sentence_transformers.json").read_text())
    assert st["prompts"]["query"] == "query: "
    assert "truncate_dim" not in st
    pooling = json.loads((folder / "1_Pooling" / "config.json").read_text())
    chosen = [k for k, v in pooling.items() if k.startswith("pooling_mode_") and v]
    expected = {"mean": "mean_tokens", "cls": "cls_token", "last": "lasttoken"}
    assert chosen == [f"pooling_mode_{expected[trained.spec.pooling]}"]
    assert pooling["word_embedding_dimension"] == 32
    # sentence-transformers 5 refuses what its Pooling does not take
    assert set(pooling) - {"word_embedding_dimension", "pooling_mode", "include_prompt"} == {
        f"pooling_mode_{n}" for n in ("cls_token", "mean_tokens", "max_tokens", "lasttoken",
                                      "mean_sqrt_len_tokens", "weightedmean_tokens")}  # fmt: skip
    modules = json.loads((folder / "modules.json").read_text())
    assert [m["type"].rsplit(".", 1)[1] for m in modules] == ["Transformer", "Pooling", "Normalize"]
    if trained.spec.append_eos is None:
        assert (folder / "tokenizer.json").read_bytes() == (
            trained.base / "tokenizer.json").read_bytes()  # fmt: skip
        ours, own = (json.loads((where / "tokenizer_config.json").read_text())
                     for where in (folder, trained.base))  # fmt: skip
        assert ours == own | {"model_max_length": 24}


@pytest.mark.parametrize("case", ["bert", "qwen3-no-eos"])
@pytest.mark.parametrize("own", [None, 10])
def test_a_long_text_is_cut_alike_by_programs_that_read_the_tokenizer_alone(tmp_path, case, own):
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    trained = Trained(tmp_path, case)
    path = trained.base / "tokenizer.json"
    state = json.loads(path.read_text(encoding="utf-8"))
    cut = {"direction": "Right", "max_length": own, "strategy": "LongestFirst", "stride": 0}
    state["truncation"] = cut if own else None  # all-MiniLM-L6-v2 cuts at 128 by itself
    path.write_text(json.dumps(state, ensure_ascii=False), encoding="utf-8")
    folder = trained.write(tmp_path / "adapter")
    texts = [" ".join(SENTENCES[:8]), "Yes."]
    ours = trained.encoder.ids(texts, "query")
    assert [len(ids) for ids in ours][0] == 24 > len(ours[1])
    files = AutoTokenizer.from_pretrained(folder)
    assert files(texts, truncation=True)["input_ids"] == ours
    plain = Tokenizer.from_file(str(folder / "tokenizer.json"))
    if own:
        assert [plain.encode(text).ids for text in texts] == ours
    else:
        assert plain.truncation is None
    verify.settle_tokens(folder, texts[1:], trained.spec)
    verify.check_tokens(folder, trained.encoder, texts[1:], trained.spec)
    plain = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert (plain.truncation or {}).get("max_length") == (24 if own else None)
    # The file of this Qwen3 splits blanks in another way than transformers' class does.
    odd = [plain.encode(text).ids for text in ODD]
    assert odd == files(list(ODD))["input_ids"] and max(map(len, odd)) <= 24
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": 23}))
    with pytest.raises(ExportError, match="makes other tokens of 'a long text"):
        verify.check_tokens(folder, trained.encoder, texts[1:], trained.spec)


def test_same_weights_same_bytes(tmp_path):
    trained = Trained(tmp_path, "qwen3-no-eos")
    one, two = trained.write(tmp_path / "one"), trained.write(tmp_path / "two")
    names = sorted(str(p.relative_to(one)) for p in one.rglob("*") if p.is_file())
    assert names == sorted(str(p.relative_to(two)) for p in two.rglob("*") if p.is_file())
    for name in names:
        assert (one / name).read_bytes() == (two / name).read_bytes(), name


def test_terminator_is_the_last_token_for_any_loader(tmp_path):
    from transformers import AutoTokenizer

    trained = Trained(tmp_path, "qwen3-no-eos")
    folder = trained.write(tmp_path / "adapter")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ours = trained.encoder.ids(TEXTS, "query")
    theirs = tokenizer(TEXTS, truncation=True, max_length=24)["input_ids"]
    assert theirs == ours
    assert {row[-1] for row in theirs} == {trained.encoder.append_eos_id}
    bare = AutoTokenizer.from_pretrained(trained.base)(TEXTS)["input_ids"]
    assert bare[0][-1] != trained.encoder.append_eos_id, "the base appends it: nothing was tested"
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    end = trained.encoder.tokenizer.convert_ids_to_tokens(trained.encoder.append_eos_id)
    assert (settings.get("add_eos_token") is True) == (end == trained.encoder.tokenizer.eos_token)


def test_an_end_token_is_asked_for_where_the_class_makes_its_template_anew(tmp_path):
    """Gemma's class in transformers 4, which makes it of these settings, whatever the file has."""
    trained = Trained(tmp_path, "qwen3-no-eos", "--model.append_eos", "<|im_end|>")
    assert trained.encoder.tokenizer.eos_token == "<|im_end|>"
    folder = trained.write(tmp_path / "adapter")
    assert json.loads((folder / "tokenizer_config.json").read_text())["add_eos_token"] is True
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(folder)(TEXTS, truncation=True)["input_ids"]
    assert theirs == trained.encoder.ids(TEXTS, "query")


def test_empty_weights_are_refused(tmp_path):
    trained = Trained(tmp_path, "bert")
    state = trained.state()
    name, B = (next(k for k in state if part in k) for part in ("lora_A", "lora_B"))
    for bad, word in (
        ({**state, name: torch.empty(0)}, "empty"),
        ({**state, name: torch.tensor([[1.0, 2.0], [float("nan"), 3.0]])}, "not finite"),
        ({k: v * 0 if "lora_B" in k else v for k, v in state.items()}, "learnt nothing"),
        ({}, "no weights"),
    ):
        with pytest.raises(ExportError, match=word):
            write_adapter(
                tmp_path / "adapter", bad, trained.module.backbone.model.peft_config["default"],
                trained.spec,
            )  # fmt: skip
    assert not (tmp_path / "adapter").exists()
    check_weights(state)
    check_weights({**state, B: state[B] * 0})  # one layer may well learn nothing


def test_failed_export_leaves_the_old_one(tmp_path):
    trained = Trained(tmp_path, "bert")
    folder = trained.write(tmp_path / "adapter")
    before = (folder / "adapter_model.safetensors").read_bytes()
    broken = trained.spec._replace(base_model=str(tmp_path / "nowhere"))
    peft_config = trained.module.backbone.model.peft_config["default"]
    with pytest.raises(Exception, match="nowhere"):
        write_adapter(folder, trained.state(), peft_config, broken)
    assert (folder / "adapter_model.safetensors").read_bytes() == before


def test_a_directory_is_whole_whenever_the_writer_is_killed(tmp_path, monkeypatch):
    """The old one is moved aside, not emptied; a kill between the two moves is made good."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "weights").write_text("old")

    def killed(path, **_):
        raise KeyboardInterrupt(path)

    with pytest.raises(KeyboardInterrupt), replacing(folder) as fresh:
        (fresh / "weights").write_text("new")
        monkeypatch.setattr(Path, "rename", lambda *_: killed(folder))
    monkeypatch.undo()
    assert (folder / "weights").read_text() == "old"
    folder.rename(tmp_path / ".adapter.old")
    with pytest.raises(ValueError), replacing(folder):
        raise ValueError
    assert (folder / "weights").read_text() == "old" and len([*tmp_path.iterdir()]) == 1
    with replacing(folder) as fresh:
        (fresh / "weights").write_text("new")
    assert (folder / "weights").read_text() == "new" and len([*tmp_path.iterdir()]) == 1


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_a_server_of_another_user_can_read_the_weights(tmp_path, umask, mode):
    """safetensors writes for the owner alone; the umask decides here."""
    old = os.umask(umask)
    try:
        with replacing(tmp_path / "merged") as fresh:
            write_dense(fresh / "2_Dense", Dense(torch.eye(2), None, "Identity"))
            (fresh / "config.json").write_text("{}")
    finally:
        os.umask(old)
    files = [path for path in (tmp_path / "merged").rglob("*") if path.is_file()]
    assert len(files) == 3 and {stat.S_IMODE(path.stat().st_mode) for path in files} == {mode}


def test_data_of_a_run_is_found_again_whatever_its_path(tmp_path):
    path = tmp_path / "lr=1" / "a[1].csv"
    path.parent.mkdir()
    path.write_text("a,b\n")
    assert still_here(str(path)) and still_here(f"{path}=2") and still_here("owner/name=2")
    assert not still_here(f"{path.parent}/b.csv") and not still_here("rows[0]")


def test_bf16_may_differ_by_what_rounding_does_and_no_more():
    """A prefix with little of a vector's norm magnifies rounding; a wrong vector still fails."""
    exact = normalize(torch.randn(4, 32), dim=1)
    exact[:, :8] *= 1e-2
    rounded, live = exact + 1e-4, exact - 1e-4
    limits = rounding_limits(rounded, exact, [8, 32], 2e-3)
    assert limits["32"] == 2e-3 and 2e-3 < limits["8"] <= 0.1
    compare(live, rounded, [8, 32], limits, "here")
    live[1, :8] = live[1, :8].flip(0)
    with pytest.raises(ExportError, match=r"\{'8'"):
        compare(live, rounded, [8, 32], limits, "here")


def test_a_model_that_rounding_moves_far_has_one_limit_and_a_least_cosine():
    torch.manual_seed(0)
    exact = normalize(torch.randn(4, 32), dim=1)

    def moved(by):
        return normalize(exact + by * normalize(torch.randn(4, 32), dim=1), dim=1)

    rounded = moved(0.12)
    limits = rounding_limits(rounded, exact, [8, 32], 2e-3)
    apart = [(normalize(rounded[:, :d], dim=1) - normalize(exact[:, :d], dim=1)).norm(dim=1).max()
             for d in (8, 32)]  # fmt: skip
    assert limits["8"] == limits["32"] > 0.3
    assert limits["8"] == pytest.approx(3 * float(max(apart)))
    compare(moved(0.12), rounded, [8, 32], limits, "here")
    with pytest.raises(ExportError, match="a cosine of 0.7; the smallest is .*precision fp32"):
        compare(moved(2.0), rounded, [8, 32], limits, "here")
    assert max(rounding_limits(moved(0.05), exact, [8, 32], 2e-3).values()) <= 0.1


def test_what_one_library_rounds_another_may(monkeypatch):
    """LoRA in bf16 rounds as the live model does, LoRA in float32 less: no fault of the files."""
    torch.manual_seed(0)
    exact = normalize(torch.randn(4, 32), dim=1)
    found = {("automodel", torch.bfloat16): normalize(exact + 2e-3 * torch.randn(4, 32), dim=1)}
    monkeypatch.setattr(verify, "loaders", lambda spec, adapter: ["automodel", "peft"])
    monkeypatch.setattr(verify, "reload_vectors", lambda folder, texts, spec, *, loader, dtype: (
        found.get((loader, dtype), exact)))  # fmt: skip
    spec = SimpleNamespace(dims=(8, 32), width=32)
    live = found["automodel", torch.bfloat16]

    def proved(**more):
        return verify.prove("folder", live, ["text"] * 4, spec, name="", adapter=True,
                            dtype=torch.bfloat16, tolerance=1e-3, usage=False, **more)  # fmt: skip

    seen: dict[str, float] = {}
    report = proved(seen=seen)
    assert report["peft"]["32"] > 1e-3 and report["peft: allowed for rounding"] == seen
    found.clear()  # another form of the same model, whose files round less
    assert proved(seen=seen)["automodel"]["32"] > 1e-3
    with pytest.raises(ExportError, match="automodel gives other vectors"):
        proved()


def test_a_difference_fails():
    live = torch.randn(4, 32)
    other = live.clone()
    compare(live, other, [8, 16, 32], 1e-5, "here")
    other[2, 20] += 0.1
    with pytest.raises(ExportError, match=r"here.*\{'32'"):
        compare(live, other, [8, 16, 32], 1e-5, "here")
    other[2, 20] = float("nan")
    with pytest.raises(ExportError):
        compare(live, other, [8, 16, 32], 1e-5, "here")


@pytest.mark.parametrize(
    ("precision", "plain", "merged"), [("fp32", 1e-5, 1e-5), ("bf16", 2e-2, 6e-2)]
)
def test_what_a_form_may_differ_by(precision, plain, merged):
    """Adding B A to a weight rounds it in bf16 alone."""
    config = load_config(["--train.precision", precision])
    proof = Proof(config, None, [], torch.zeros(0, 1))
    assert (proof.tolerance(), proof.tolerance(rounded=True)) == (plain, pytest.approx(merged))
    proof.limits["8"] = 0.9 * merged
    assert proof.moved() == 0
    proof.limits["16"] = 2 * merged
    assert proof.moved() == pytest.approx(2 / 3 * merged)
    asked = Proof(config.replace(**{"export.tolerance": 1e-3}), None, [], torch.zeros(0, 1))
    assert asked.tolerance() == 1e-3


@pytest.mark.parametrize("sign", [-1, 1])
def test_one_channel_of_one_text_is_enough(sign):
    torch.manual_seed(0)
    live = normalize(torch.randn(64, 32), dim=1)
    other = live.clone()
    other[5, 3] += sign * 1e-3
    assert verify.differences(live, other, [32])["32"] == pytest.approx(1e-3, rel=0.1)
    with pytest.raises(ExportError, match="allowed"):
        compare(live, other, [8, 32], 5e-4, "here")
    other = live.clone()
    other[5] *= -1  # within a limit that is wide enough, but another vector
    with pytest.raises(ExportError, match="the smallest is -1.0000"):
        compare(live, other, [32], {"32": 2.1}, "here")


@pytest.mark.parametrize(("dtype", "off"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1)])
def test_a_reload_of_another_length_or_width_fails(monkeypatch, dtype, off):
    """The cosines are right: a model without its Normalize, or cut after it."""
    live = normalize(torch.randn(4, 32), dim=1)
    found = [live]
    monkeypatch.setattr(verify, "loaders", lambda spec, adapter: ["automodel"])
    monkeypatch.setattr(verify, "reload_vectors", lambda *_, **__: found[0])
    spec = SimpleNamespace(dims=(8, 16), width=32)

    def proved():
        return verify.prove("folder", live, ["text"] * 4, spec, name="", adapter=False,
                            dtype=dtype, tolerance=1e-5, usage=False)  # fmt: skip

    assert max(proved()["automodel"].values()) == 0
    for wrong in (live * (1 + off), live[:, :16] / live[:, :16].norm(dim=1, keepdim=True)):
        found[0] = wrong
        with pytest.raises(ExportError, match="in place of 32 of length 1"):
            proved()


def test_a_models_own_code_is_carried_into_every_export(tmp_path, monkeypatch):
    """And is not run without the user's word."""
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(tmp_path / "modules")
    with pytest.raises(UserError, match="trust_remote_code"):
        Trained(tmp_path, "own-code")
    trained = Trained(tmp_path, "own-code", *TRUST)
    live, out = trained.vectors(), tmp_path / "run"
    config = trained.config.replace(**{"export.merged": True})
    known = {"config": config, "source": trained.source, "encoder": trained.encoder}
    model = trained.module.backbone.model
    export_model(model, in_backbone(trained.state()), live, TEXTS, out=out, **known)
    parity = json.loads((out / "parity.json").read_text())
    assert {f"{kind} in {loader}" for kind in ("adapter", "merged") for loader in
            ("automodel", "sentence-transformers")} < set(parity)  # fmt: skip
    assert (out / "merged" / "own_code.py").is_file()
    whole = Trained(tmp_path / "whole", "own-code", *TRUST, "--lora.rank", "0")
    known = {"config": whole.config, "source": whole.source, "encoder": whole.encoder}
    live, model = whole.vectors(), whole.module.backbone.model
    export_model(model, in_backbone(whole.state()), live, TEXTS, out=tmp_path / "full", **known)
    assert "merged in automodel" in json.loads((tmp_path / "full" / "parity.json").read_text())


def test_a_refused_export_leaves_nothing(tmp_path):
    trained = Trained(tmp_path, "bert")
    known = {"config": trained.config, "source": trained.source, "encoder": trained.encoder}
    wrong = trained.vectors().flip(1)
    with pytest.raises(ExportError, match="adapter in automodel gives other vectors"):
        export_model(trained.module.backbone.model, in_backbone(trained.state()), wrong, TEXTS,
                     out=tmp_path / "run", **known)  # fmt: skip
    assert not any((tmp_path / "run").iterdir())


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("error", [ValueError("other\nlines"), ExportError("other vectors")])
def test_what_fails_on_the_first_rank_is_told_on_all(monkeypatch, rank, error):
    """One line on every rank; the fault of a library is no traceback."""
    from types import SimpleNamespace

    from mipic_llm.training import finish

    def fails(*_args, **_options):
        raise error

    told = []
    monkeypatch.setattr(finish, "export_model", fails)
    monkeypatch.setattr(finish, "encode", lambda *_a, **_k: torch.zeros(1, 1, 4))
    monkeypatch.setattr(finish.dist, "rank", lambda: rank)
    monkeypatch.setattr(finish.dist, "from_first", lambda value: told.append(value) or "export: x")
    backbone = SimpleNamespace(n_layers=1, model=None)
    engine = SimpleNamespace(module=SimpleNamespace(backbone=backbone, parameters=list),
                             state=lambda trainable_only: {"backbone.model.w": 1})  # fmt: skip
    data = SimpleNamespace(sources=[], encoder=SimpleNamespace(bare=dict))
    run = SimpleNamespace(
        config=None, engine=engine, lora=True, source=None, out=Path("none"), data=data
    )
    kind = ExportError if rank == 0 and isinstance(error, ExportError) else UserError
    with pytest.raises(kind) as raised:
        finish.export(run)
    assert (told[0] is None) == (rank == 1)
    assert "\n" not in str(raised.value)
