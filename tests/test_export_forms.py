"""Other forms of an export: rotated onto principal axes, as ONNX, on the hub. Each is read back."""

from __future__ import annotations

import base64
import json
import math
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from api_worker import ROWS, settings
from readers import served
from safetensors.torch import load_file
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer
from tiny_models import TEXTS, tiny_bert, tiny_qwen3
from torch.nn.functional import cosine_similarity

import mipic_llm
from mipic_llm import UserError
from mipic_llm.commands.export import main
from mipic_llm.evaluation.bits import Quantiser
from mipic_llm.evaluation.encode import check_record
from mipic_llm.evaluation.pca import axes_module, mean_share, principal_axes
from mipic_llm.export import budget, onnx, rotate
from mipic_llm.types import BITS, Point


def trained(folder: Path, make, **more) -> mipic_llm.Run:
    base = make(folder / "base", **more)
    kept = settings(str(base)) | {"validation": "demo"}
    return mipic_llm.train(ROWS, output_dir=folder / "run", **kept)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> mipic_llm.Run:
    return trained(tmp_path_factory.mktemp("bert"), tiny_bert)


@pytest.fixture(scope="module")
def rotated(run, tmp_path_factory) -> Path:
    to = tmp_path_factory.mktemp("rotated")
    return mipic_llm.export(run, rotate="pca", pca_text=["demo"], to=to)


def encode(folder: Path, dim: int | None = None) -> np.ndarray:
    model = SentenceTransformer(str(folder), device="cpu", truncate_dim=dim)
    return model.encode(TEXTS, prompt="", normalize_embeddings=dim is not None)


def test_a_rotation_keeps_whole_cosines_and_betters_prefixes(run, rotated):
    was, now = encode(run.path / "adapter"), encode(rotated)
    assert np.abs(was @ was.T - now @ now.T).max() < 1e-6 and np.abs(was - now).max() > 0.1
    assert np.abs(served(rotated, TEXTS).numpy() - now).max() < 1e-6
    weight = load_file(rotated / "2_Dense" / "model.safetensors")["linear.weight"].numpy()
    assert np.abs(weight @ weight.T - np.eye(32)).max() < 1e-6
    off = [np.abs(v @ v.T - was @ was.T).mean() for v in
           (encode(run.path / "adapter", 8), encode(rotated, 8))]  # fmt: skip
    assert off[1] < 0.7 * off[0]
    card = (rotated / "README.md").read_text()
    assert "8: 0." in card and "before -> after" in card and "spearman on demo x 100" in card
    again = mipic_llm.evaluate(rotated, "demo", dims=[8], layers=[4],
                               output_dir=rotated.parent / "scores")  # fmt: skip
    assert f"| 4 | {100 * again[0].value:.2f} [" in card


def test_a_rotation_can_be_cut(run, rotated, tmp_path):
    small = mipic_llm.export(run, rotate="pca", pca_text=["demo"], point="8@4", merged=True,
                             to=tmp_path)  # fmt: skip
    assert small.name == "rotated-4x8"
    assert np.abs(encode(tmp_path / "merged") - encode(run.path / "adapter")).max() < 1e-6
    assert np.abs(encode(small) - encode(rotated, 8)).max() < 1e-6


def test_the_gains_of_a_rotation_are_of_texts_that_did_not_fit_it(monkeypatch) -> None:
    """The figures of its card: rank correlations over all pairs of every fifth text, by scipy."""
    z = torch.randn(60, 6, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 7) + 1
    at = {f"text {i}": i for i in range(60)}
    monkeypatch.setattr(rotate, "text_to_fit", lambda *_: list(at))
    monkeypatch.setattr(rotate, "read_texts", lambda _, __, texts, ___: z[[at[t] for t in texts]])
    monkeypatch.setattr(rotate, "judged_with", lambda *_: ((), ["gains"]))
    model = SimpleNamespace(width=6, n_layers=2)
    found = rotate.rotate(None, model, None, Point(2, 6), [2, 4, 6], [])
    held = torch.arange(60) % 5 == 0
    assert torch.equal(found.dense.weight, principal_axes(z[~held]).float())
    one, two = np.triu_indices(12, 1)

    def cosines(x: torch.Tensor) -> np.ndarray:
        return cosine_similarity(x[held][one], x[held][two]).numpy()

    words = []
    for d in (2, 4):
        was, now = (spearmanr(cosines(x[:, :d].double()), cosines(z.double())).statistic
                    for x in (z, z @ found.dense.weight.T))  # fmt: skip
        words.append(f"{d}: {was:.3f} -> {now:.3f}")
    assert f"12 other texts, before -> after: {', '.join(words)}." in found.notes[0]
    assert "axes of 48 texts" in found.notes[0] and found.notes[1] == "gains"


def test_axes_are_those_of_the_greatest_mean_square_or_variance():
    import torch

    x = torch.randn(500, 6) * torch.tensor([1.0, 5, 2, 0.1, 3, 1]) + torch.tensor(
        [0, 9.0, 9, 0, 0, 0]
    )
    axes = principal_axes(x)
    unit = torch.nn.functional.normalize(x.double(), dim=1)
    kept = (unit @ axes.T).pow(2).sum(0)
    values = torch.linalg.svdvals(unit).pow(2)
    assert torch.allclose(kept, values) and torch.allclose(axes @ axes.T, torch.eye(6).double())
    axes = principal_axes(x, centred=True)  # at right angles to the mean, which is last
    mean = torch.nn.functional.normalize(unit.mean(0), dim=0)
    assert torch.allclose(axes[-1].dot(mean).abs(), torch.ones(()).double())
    assert torch.allclose(axes @ axes.T, torch.eye(6).double())
    rest = unit - (unit @ mean)[:, None] * mean
    values = torch.linalg.svdvals(rest).pow(2)
    assert torch.allclose((unit @ axes[:-1].T).pow(2).sum(0), values[:-1])
    assert (unit @ axes[:-1].T).mean(0).abs().max() < 1e-12  # prefixes are centred
    share, (module, about) = mean_share(x), axes_module(x, centred=True)
    assert 0.5 < share < 1 and f"taken off: it is {100 * share:.0f} %" in about
    assert torch.equal(module.weight, axes.float())
    assert (x @ module.weight.T + module.bias).mean(0).abs().max() < 1e-5
    y = x - 0.9 * x.mean(0)
    assert mean_share(y) < 0.5 and axes_module(y, centred=True)[0].bias is None
    assert axes_module(x)[0].bias is None
    with pytest.raises(UserError, match="5 distinct texts do not fix 6 axes"):
        principal_axes(x[:5])


def test_a_model_without_a_run_is_rotated_whole(tmp_path, monkeypatch):
    base = str(tiny_bert(tmp_path / "base"))
    words = ["--model.name", base, "--rotate", "centred", "--pca_text", "demo", "--to"]
    was, at = encode(base, 32), {}
    share = mean_share(torch.tensor(was))  # of a random model: nearly all
    assert 0.5 < share < 1
    for name, limit in (("kept", 0.99), ("off", 0.5)):
        monkeypatch.setattr("mipic_llm.evaluation.pca.MOSTLY_MEAN", limit)
        assert main([*words, str(tmp_path / name)]) == 0
        at[name] = encode(tmp_path / name / "rotated-4x32")
    now, off = at["kept"], at["off"]
    assert np.abs(was @ was.T - now @ now.T).max() < 1e-6 and np.abs(was - now).max() > 0.1
    assert np.abs(now.mean(0)).argmax() == 31  # what all texts share is last
    one, two = (load_file(tmp_path / n / "rotated-4x32/2_Dense/model.safetensors") for n in at)
    assert torch.equal(one["linear.weight"], two["linear.weight"])
    assert set(two) - set(one) == {"linear.bias"}
    assert mean_share(torch.tensor(off)) < 0.5
    assert "taken off" in (tmp_path / "off/rotated-4x32/README.md").read_text()
    words = [*words, str(tmp_path / "kept")]
    for wrong in (words[:-2], words[:4] + words[6:], [*words, "--merged"]):
        with pytest.raises(UserError, match="^export: "):
            main(wrong)


@pytest.mark.parametrize("kept", [(32, 8, 1), (32, 8), (1,)])
def test_the_best_size_in_so_many_bytes(run, tmp_path, capsys, monkeypatch, kept):
    """The choice and its cost against evaluate's own figures; the card's Python gives the codes."""
    monkeypatch.setattr(budget, "BITS", {bits: BITS[bits] for bits in kept})
    folder = mipic_llm.export(run, bytes=10, to=tmp_path / "out", data=["demo"])
    told, said = json.loads((folder / "quantization.json").read_text()), capsys.readouterr().out
    # Its ranges are those of the tasks' texts, as here: rows of a program cannot be read again.
    found = mipic_llm.evaluate(run, "demo", layers=[4], bits=[b for b in kept if b != 32],
                               output_dir=tmp_path / "scores")  # fmt: skip
    of = {s.point: s.value for s in found}
    small = {p: v for p, v in of.items() if p.bytes <= 10 and p.bits in kept}
    best = max(small, key=lambda p: (small[p], -p.bytes))
    assert (told["dim"], told["bits"], told["bytes"]) == (best.dim, best.bits, best.bytes)
    assert folder.name == f"shallow-4x{best.dim}" and f"{best.size} in {best.bytes} bytes" in said
    assert f"{100 * (small[best] - of[Point(4, 32)]):+.2f} [" in said
    card = (folder / "README.md").read_text()
    (code,) = [c.split("```")[0] for c in card.split("```python\n") if "codes = " in c]
    path = folder / "config_sentence_transformers.json"  # what an index stores has its prompt
    kept = json.loads(path.read_text()) | {"prompts": {"query": "ask ", "document": "a letter: "}}
    path.write_text(json.dumps(kept))
    if told["ranges"]:  # so narrow that most channels lie outside
        middle = np.mean(told["ranges"], axis=0)
        told["ranges"] = (middle + np.array([[-1e-3], [1e-3]])).tolist()
        (folder / "quantization.json").write_text(json.dumps(told))
    names: dict = {}
    exec(code.replace("PATH", str(folder)), names)
    vectors = run.encode(["a letter: Open the settings."], dim=best.dim)
    fitted = Quantiser(torch.tensor(told["ranges"] or np.zeros((2, best.dim))))
    assert (names["codes"] == fitted.codes(torch.from_numpy(vectors), best.bits)).all()
    assert names["codes"].nbytes == best.bytes and (told["ranges"] is None) == (best.bits == 1)
    if best.bits == 8:
        unit = torch.from_numpy(vectors)
        assert np.abs(names["values"] - fitted.stored(unit, 8).numpy()).max() < 1e-6


def test_a_cut_of_a_full_fine_tuning_has_no_random_weights(tmp_path):
    """Its files have no pooler; the class makes one up at each load."""
    base = tiny_bert(tmp_path / "base")
    run = mipic_llm.train(ROWS, output_dir=tmp_path / "run", **settings(str(base)) | {
        "lora": {"rank": 0}})  # fmt: skip
    one, two = (load_file(mipic_llm.export(run, point="16@2", to=tmp_path / name)
                          / "model.safetensors") for name in ("one", "two"))  # fmt: skip
    assert set(one) == set(two) and not [key for key in one if "pooler" in key]
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_a_search_in_few_bytes_may_keep_its_queries_whole(run, tmp_path, capsys):
    """Chosen by the figures of evaluate's own family; the card's Python gives the scores."""
    data = tmp_path / "search"
    (data / "qrels").mkdir(parents=True)
    every = [f"{do} the {what}" for do in "open close paint wash sell lend".split()
             for what in "door book house settings window letter garden".split()]  # fmt: skip
    asked = {f"q{i}": text for i, text in enumerate(every)}
    held = {f"d{i}": f"please {text} now" for i, text in enumerate(every)}
    for file, texts in (("queries", asked), ("corpus", held)):
        lines = [json.dumps({"_id": name, "text": text}) for name, text in texts.items()]
        (data / f"{file}.jsonl").write_text("\n".join(lines))
    right = [f"q{i}\td{i}\t1" for i in range(len(every))]
    (data / "qrels/test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *right]))
    folder = mipic_llm.export(run, bytes=4, to=tmp_path / "out", data=[str(data)])
    told, said = json.loads((folder / "quantization.json").read_text()), capsys.readouterr().out
    mipic_llm.evaluate(run, str(data), layers=[4], bits=[1], output_dir=tmp_path / "scores")
    rows = [json.loads(x) for x in (tmp_path / "scores/scores.jsonl").read_text().splitlines()]
    small = {(r["value"], -r["dim"], r["readout"]): r for r in rows if r["metric"] == "ndcg@10"
             and r.get("bits") == 1 and r["dim"] <= 32}  # fmt: skip
    best = small[max(small)]
    assert best["readout"] == "float queries" and told["queries"] == "float32"
    assert (told["dim"], told["bits"]) == (best["dim"], 1)
    assert f"{best['dim']} binary, float queries in {told['bytes']} bytes" in said
    card = (folder / "README.md").read_text()
    (code,) = [c.split("```")[0] for c in card.split("```python\n") if "codes = " in c]
    names: dict = {}
    exec(code.replace("PATH", str(folder)), names)
    documents = run.encode(["Open the settings."], dim=best["dim"])
    query = run.encode(["How do I open the settings?"], dim=best["dim"])
    want = np.where(documents > 0, 1.0, -1.0) @ query[0]
    assert names["scores"] * (np.linalg.norm(query) / np.linalg.norm(names["model"].encode_query(
        "How do I open the settings?"))) == pytest.approx(want, abs=1e-5)  # fmt: skip


def test_the_smallest_of_equals_fits_best_and_none_without_a_figure(monkeypatch):
    whole, signs, floats, codes = (
        budget.Stored(Point(4, d, bits)) for d, bits in ((32, 32), (16, 1), (8, 32), (8, 8))
    )
    means = {whole: 0.9, signs: math.nan, floats: 0.8, codes: 0.8}
    monkeypatch.setattr(budget, "_span", lambda *_: "[-11.00, -9.00]")

    def chosen(*ways):
        return budget._choose(ways, means, {"pairs": "spearman"}, {}, {}, 32)[0]

    assert chosen(signs, floats, codes) == chosen(codes, floats) == codes
    with pytest.raises(UserError, match="no size of at most 32 bytes has a figure on every task"):
        chosen(signs)


def test_bytes_that_no_size_fits(run, tmp_path, monkeypatch):
    for wrong, words in (
        ({"bytes": 10, "point": "8@4"}, "chooses the size by itself"),
        ({"data": ["demo"]}, "goes with --bytes"),
    ):
        with pytest.raises(UserError, match=words):
            mipic_llm.export(run, to=tmp_path, **wrong)
    monkeypatch.setattr(budget, "BITS", {8: "int8"})
    with pytest.raises(UserError, match="no size takes so few; the smallest is 8 int8, 8 bytes"):
        mipic_llm.export(run, bytes=4, to=tmp_path)


def test_a_rotation_wants_text(run, tmp_path):
    with pytest.raises(UserError, match="training data are not here; give --pca_text"):
        mipic_llm.export(run, rotate="pca", to=tmp_path)


def test_a_run_that_other_rules_made_is_not_read_by_those_of_today(run, tmp_path):
    """What `auto` came to is in environment.json: by name, in a line of older runs, or nowhere."""
    old = Path(shutil.copytree(run.path, tmp_path / "old"))
    told = json.loads((old / "environment.json").read_text())
    assert told["pooling"] == "mean" and told["append_eos"] is None
    lines = {"vectors": told["vectors"].replace("pooling mean", "pooling cls")}
    for was, match in (
        (
            told | {"pooling": "cls"},
            "pooling: .* trained with cls, and this version takes mean",
        ),
        (told | {"append_eos": "[SEP]"}, r"append_eos: .* trained with \[SEP\], .* takes None"),
        (lines, "pooling: .* was trained with cls, .*mipic evaluate --model .*old/adapter"),
    ):
        (old / "environment.json").write_text(json.dumps(was))
        with pytest.raises(UserError, match=match):
            mipic_llm.export(old, merged=True, to=tmp_path / "none")
        with pytest.raises(UserError, match=match):
            mipic_llm.merge(old, scale=0.5, to=tmp_path / "none")
    vocabulary = {"<|endoftext|>": 1, "<end>": 2}
    tokenizer = SimpleNamespace(convert_ids_to_tokens={2: "<end>"}.get,
                                get_vocab=lambda: vocabulary)  # fmt: skip
    decoder = SimpleNamespace(tokenizer=tokenizer, pooling="last")
    rules = run.config, decoder, SimpleNamespace(append_eos_id=2)
    for was in ("{}", json.dumps({"vectors": "pooling last, <|endoftext|> ends each text"})):
        (old / "environment.json").write_text(was)
        with pytest.raises(UserError, match=r"trained with <.endoftext.>, .* takes <end>"):
            check_record(old, *rules)
    del vocabulary["<|endoftext|>"]
    (old / "environment.json").write_text("{}")
    check_record(old, *rules)


def test_an_adapter_whose_files_cut_texts_at_another_length_is_merged(run, tmp_path):
    """As those of older versions did, which named the length of the base."""
    old = Path(shutil.copytree(run.path, tmp_path / "old"))
    path = old / "adapter" / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": 8}))
    folder = mipic_llm.export(old, merged=True, to=tmp_path / "merged")
    assert np.abs(encode(folder) - encode(run.path / "adapter")).max() < 1e-6


def test_onnx_names_what_to_install(run, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="onnx and onnxscript and onnxruntime not installed; pip"):
        mipic_llm.export(run, merged=True, onnx=True, to=tmp_path)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("make, point", [(tiny_bert, "8@2"), (tiny_qwen3, None)])
def test_onnx_gives_the_vectors_of_the_point(run, tmp_path, make, point, monkeypatch):
    """The decoder's as those of a large model: its weights in files of their own."""
    for package in onnx.PACKAGES:
        pytest.importorskip(package)
    import onnxruntime

    if make is not tiny_bert:
        run = trained(tmp_path, make, appends_eos=False)
        monkeypatch.setattr(onnx, "WHOLE", 0)
    with pytest.raises(UserError, match="onnx: ONNX is a whole model"):
        mipic_llm.export(run, onnx=True, to=tmp_path / "none")
    folder = mipic_llm.export(run, merged=not point, point=point, onnx=True, to=tmp_path / "onnx")
    wanted, least = encode(folder), {}
    tokens = SentenceTransformer(str(folder), device="cpu").tokenizer(
        TEXTS, padding=True, truncation=True, max_length=512, return_tensors="np"
    )
    feed = {name: tokens[name] for name in ("input_ids", "attention_mask")}
    for file in onnx.FILES.values():
        session = onnxruntime.InferenceSession(folder / "onnx" / file)
        tokens_STD, found = session.run(["last_hidden_state", "sentence_embedding"], feed)
        assert tokens_STD.shape == (*feed["input_ids"].shape, 32)
        assert np.abs(np.linalg.norm(found, axis=1) - 1).max() < 1e-5
        least[file] = (found * wanted).sum(1).min()
    assert least["model.onnx"] > 1 - 1e-6 and 1 - 1e-6 > least["model_quantized.onnx"] > 0.98
    told = json.loads((folder / "onnx" / "parity.json").read_text())
    assert max(told["onnx"].values()) < 1e-5
    weights = {f"{name}_data" for name in onnx.FILES.values()} if make is not tiny_bert else set()
    assert {p.name for p in (folder / "onnx").iterdir()} == {*least, "parity.json"} | weights


class Hub(BaseHTTPRequestHandler):
    """What the hub answers to an upload of small files."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        kept, path = self.server.kept, self.path  # type: ignore[attr-defined]
        kept.append((path, body, self.headers.get("Authorization")))
        here = f"http://127.0.0.1:{self.server.server_address[1]}"
        answer: dict = {}
        if path == "/api/repos/create":
            answer = {"url": f"{here}/me/small"}
        elif path.endswith("/preupload/main"):
            files = json.loads(body)["files"]
            answer = {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False,
                                 "oid": None} for f in files]}  # fmt: skip
        elif path.endswith("/commit/main"):
            answer = {"success": True, "commitOid": "c0ffee", "hookOutput": "",
                      "commitUrl": f"{here}/me/small/commit/c0ffee"}  # fmt: skip
        data = json.dumps(answer).encode()
        refused = "denied" in path or b"denied" in body
        self.send_response(403 if refused else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_args) -> None:
        pass


@pytest.fixture
def hub(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.kept = []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_TOKEN", "word")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(
        "huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}"
    )
    yield server
    server.shutdown()


def test_a_push_is_one_commit_of_files_that_load(run, tmp_path, hub, capsys):
    folder = mipic_llm.export(run, point="8@2", to=tmp_path / "out", push="me/small")
    paths = [path for path, _, _ in hub.kept]
    assert paths[0] == "/api/repos/create" and paths[-1] == "/api/models/me/small/commit/main"
    made = json.loads(hub.kept[0][1])
    assert (made["name"], made["organization"], made["visibility"]) == ("small", "me", "private")
    assert hub.kept[-1][2] == "Bearer word"
    lines = [json.loads(line) for line in hub.kept[-1][1].splitlines()]
    files = {one["value"]["path"]: base64.b64decode(one["value"]["content"])
             for one in lines if one["key"] == "file"}  # fmt: skip
    assert files.keys() == {p.relative_to(folder).as_posix() for p in folder.rglob("*")
                            if p.is_file()}  # fmt: skip
    for name, content in files.items():
        (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "copy" / name).write_bytes(content)
        if name != "README.md":
            assert content == (folder / name).read_bytes()
    assert b'SentenceTransformer("me/small")' in files["README.md"]
    assert np.abs(encode(tmp_path / "copy") - encode(folder)).max() < 1e-6
    assert "pushed: http" in capsys.readouterr().out


def test_nothing_is_pushed_without_the_flag_or_a_base_that_others_have(
    run, tmp_path, hub, monkeypatch
):
    mipic_llm.export(run, to=tmp_path)
    with pytest.raises(UserError, match="is no id of the hub"):
        mipic_llm.export(run, push="small", to=tmp_path)
    with pytest.raises(UserError, match="is a directory, which nobody else has"):
        mipic_llm.export(run, push="me/small", to=tmp_path)
    assert hub.kept == []
    with pytest.raises(UserError, match="me/denied was not uploaded .*403.*hf auth login"):
        mipic_llm.export(run, merged=True, push="me/denied", to=tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="me/away was not uploaded .*does not reach the hub"):
        mipic_llm.export(run, merged=True, push="me/away", to=tmp_path)
