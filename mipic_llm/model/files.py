"""Where the files of a model are, and what the small ones say: paths, hub ids, adapters.

`model/directory.py` puts it together.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mipic_llm.config.files import legal_path, model_folder
from mipic_llm.config.recipe import read_yaml
from mipic_llm.disk import samples
from mipic_llm.errors import UserError
from mipic_llm.hub import ask_hub

QUICKSTART_HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"
KINDS = ("adapter", "merged")  # directories of a run's model
FORMS = ("shallow", "rotated", "lens")  # of what an export cuts or turns: KIND-LAYERxDIM
_READ = ("Transformer", "Pooling", "Dense")  # in this order
_HARMLESS = ("Normalize", "Dropout")  # length does not change a cosine, dropout is off
_POOLINGS = {"cls": "cls", "mean": "mean", "lasttoken": "last"}
# pooling_mode_* of older directories -> pooling_mode
_LEGACY = {"cls_token": "cls", "mean_tokens": "mean", "lasttoken": "lasttoken",
           "max_tokens": "max", "mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
           "weightedmean_tokens": "weightedmean"}  # fmt: skip


def bad(name: object, why: str) -> UserError:
    """The error to raise about this model."""
    return UserError(f"model {name}: {why}")


def resolve_name(name: str) -> str:
    """'quickstart' -> the packaged all-MiniLM-L6-v2 weights, else its hub id; others as given."""
    legal_path(name)
    folder = model_folder(name)
    return str(folder) if folder else QUICKSTART_HUB_ID if name == "quickstart" else name


def refuse_links(folder: Path, name: str) -> None:
    """UserError for a small file of a model's directory that is a link to somewhere else: an export
    would hand on whatever it leads to. The hub's cache links to its own files."""
    home = folder.resolve()
    for path in sorted(folder.glob("*")):
        target = path.resolve()
        cached = target.parent.name == "blobs" and target.parents[1].name.startswith("models--")
        weights = path.suffix in (".safetensors", ".bin")
        if path.is_symlink() and not (cached or weights or target.is_relative_to(home)):
            raise bad(name, f"{path.name} is a link out of the directory, and would be copied into "
                      "exports; put the file itself there")  # fmt: skip


def content_of(place: str, commit: str | None = None, adapter: str | None = None) -> str:
    """A name for the content of a model's directory (settings, tokenizer, samples of the weights),
    or of a hub id at a commit, and of the adapter on it."""
    base, folder = hashlib.blake2b(digest_size=16), Path(place)
    for path in sorted(Path(adapter).glob("adapter_*")) if adapter else ():
        base.update(path.name.encode() + path.read_bytes())
    if not folder.is_dir():
        base.update(repr((place, commit)).encode())
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix in (".json", ".txt", ".model") and path.is_file():
            base.update(path.name.encode() + path.read_bytes())
        elif path.suffix in (".safetensors", ".bin") and path.is_file():
            base.update(repr((path.name, path.stat().st_size)).encode())
            for piece in samples(path):
                base.update(piece)
    return base.hexdigest()


class Place(NamedTuple):
    """folder: of the settings. modules: of each class, their paths in it. root: of the
    transformer."""

    folder: Path
    modules: dict[str, list[str]]
    root: Path
    backbone: str
    revision: str | None
    adapter: str | None
    notes: tuple[str, ...]


def locate(name: str, revision: str | None, base: str | None) -> Place:
    """Find the files of a directory or hub id; of an id the small ones are downloaded. base: see
    `read_model`. UserError for what is no model, or has modules that we do not reproduce."""
    local = Path(name).is_dir()
    folder, notes = (Path(name), ()) if local else _small_files(name, revision)
    modules = _modules(folder, name)
    sub = modules.get("Transformer", [""])[0]
    for path in [] if local else modules.get("Dense", []):
        _download(name, revision, [f"{path}/*"])
    root = folder / sub
    backbone, adapter = str(root) if local else name, None
    is_adapter = (root / "adapter_config.json").is_file()
    if not local and (sub or is_adapter):  # such weights have no hub id of their own
        root = _download(name, revision, [f"{sub}/*" if sub else "*adapter*", "*.json"]) / sub
        backbone = str(root)
    if is_adapter:
        adapter = str(root)
        backbone, own_revision = _base_of(root, name, base)
        revision = revision if base else own_revision
        if not Path(backbone).is_dir():
            ask_hub()
    elif local and not (root / "config.json").is_file():
        inside, run = exported(root), (root / "config.yaml").is_file()
        hint = (f"; its run's model is {inside}" if inside else "; it is a run whose model is not "
                "exported yet: wait for it, or go on with --train.resume auto" * run)  # fmt: skip
        raise bad(name, f"{root} holds neither config.json nor adapter_config.json, so it is no "
                  f"model directory{hint}")  # fmt: skip
    return Place(folder, modules, root, backbone, revision, adapter, notes)


def own_tokenizer(adapter: str | None) -> str | None:
    """The directory of an adapter that has a tokenizer beside it, as those of our exports have
    where its texts end in a token that the base's lacks."""
    return adapter if adapter and (Path(adapter) / "tokenizer_config.json").is_file() else None


def _small_files(name: str, revision: str | None) -> tuple[Path, tuple[str, ...]]:
    """The settings of a hub id, in the hub's cache; a note where the cache may lack some."""
    path = Path(name)
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or path.exists():
        raise bad(name, "no such directory")
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    ask_hub()
    folder = _download(name, revision, ["*.json"])
    if (folder / "modules.json").is_file():
        return folder, ()
    try:  # the hub's word on whether there is one, which the cache remembers
        hf_hub_download(name, "modules.json", revision=revision)
    except Exception:  # absent, or out of reach: asked next
        pass
    if try_to_load_from_cache(name, "modules.json", revision=folder.name) is not None:
        return folder, ()
    return folder, (
        f"{name}: its modules.json is not in the cache and the hub is out of reach, so that its "
        "pooling is a guess; --model.pooling says it",
    )


def _download(name: str, revision: str | None, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except Exception as error:  # the hub raises many kinds; the user can only do one thing
        why = str(error).splitlines()[0]
        raise bad(name, f"no such directory, and as a Hugging Face id it cannot be read ({why}); "
                  "check the name, or the network") from error  # fmt: skip


def read_json(path: Path, kind: type = dict) -> Any:
    """The object (or list) in a file, empty without the file."""
    if not path.is_file():
        return kind()
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"model: {path} cannot be read as JSON: {error}") from None
    if not isinstance(found, kind):
        raise UserError(f"model: {path} holds a {type(found).__name__}, not a {kind.__name__}")
    return found


def _modules(folder: Path, name: str) -> dict[str, list[str]]:
    """Class name -> paths of the modules that we reproduce; empty without modules.json."""
    listed = read_json(folder / "modules.json", list)
    found: dict[str, list[str]] = {}
    kinds = [str(entry["type"]).rsplit(".", 1)[-1] for entry in listed]
    for kind, entry in zip(kinds, listed, strict=True):
        path = entry.get("path") or ""
        if kind in _READ and (kind == "Dense" or kind not in found):
            found.setdefault(kind, []).append(path)
        elif kind not in _HARMLESS:
            raise bad(name, f"its modules.json has a {kind} module (path {path or '.'}), which is "
                      "not part of our readout: only Transformer, Pooling, Dense and Normalize can "
                      "be trained and evaluated")  # fmt: skip
    order = [kind for kind in kinds if kind != "Dropout"]
    if listed and list(found)[:2] != ["Transformer", "Pooling"] or "Dense" in order[
        order.index("Normalize") if "Normalize" in order else len(order) :
    ]:  # fmt: skip
        raise bad(name, "its modules.json must hold a Transformer, then a Pooling, then any Dense "
                  f"modules, then Normalize; it holds {', '.join(kinds)}")  # fmt: skip
    return found


def pooling_of(config: Mapping[str, Any], name: str) -> tuple[str, bool]:
    """-> also whether it reads the tokens of prompts. UserError for what we cannot pool."""
    modes = config.get("pooling_mode") or [
        mode for key, mode in _LEGACY.items() if config.get(f"pooling_mode_{key}")
    ]
    modes = [modes] if isinstance(modes, str) else sorted(modes) or ["mean"]
    if len(modes) > 1 or modes[0] not in _POOLINGS:
        raise bad(name, f"it pools by {' + '.join(modes)}; only cls, mean and lasttoken can be "
                  "trained and evaluated; --model.pooling sets one all the same")  # fmt: skip
    return _POOLINGS[modes[0]], config.get("include_prompt") is not False


def _base_of(folder: Path, name: str, base: str | None) -> tuple[str, str | None]:
    """The backbone of an adapter, as told, recorded, or beside the adapter; and its revision."""
    settings = read_json(folder / "adapter_config.json")
    own = read_json(folder / "config_sentence_transformers.json")
    beside = own.get("base_beside")  # a copied pair lies as the first one did
    recorded = resolve_name(base or settings.get("base_model_name_or_path") or "")
    places = [Path(recorded), folder / recorded] if recorded else []
    for path in [*places, *([folder / beside] if beside and not base else [])]:
        if path.is_dir():
            return str(path), None
    if not recorded or Path(recorded).is_absolute() or recorded.startswith("."):
        why = f"base {recorded} is not on this machine" if recorded else "adapter names no base"
        raise bad(name, f"its {why}; give --model.name BASE")
    return recorded, settings.get("revision")


def exported(run: Path) -> Path | None:
    """The finished model in a run's output directory: its adapter, or its whole model."""
    return next((run / kind for kind in KINDS if (run / kind).is_dir()), None)


def forms_of(run: Path) -> list[Path]:
    """What an export cut or turned beside a run's model: of no use when that is another."""
    return [path for kind in FORMS for path in sorted(run.glob(f"{kind}-*x*"))]


def older_forms(run: Path, written: Sequence[str]) -> str:
    """A note on the exports that lie beside those just written; empty where there are none."""
    beside = [path.name for path in (run / "merged", *forms_of(run))
              if path.is_dir() and path.name not in written]  # fmt: skip
    return (f"note: {', '.join(beside)} in {run} came before this model; export again what is to "
            "be of it") if beside else ""  # fmt: skip


def run_of(folder: Path, section: str, key: str) -> Any:
    """What the run beside an older export (<output_dir>/adapter) says of its readouts."""
    path = folder.resolve().parent / "config.yaml"
    if folder.resolve().name not in KINDS or not path.is_file():
        return None
    tree = read_yaml(path, f"model: {path}") or {}
    return (tree.get(section) or {}).get(key)
