"""Upload of an export to the Hugging Face hub, as one commit."""

from __future__ import annotations

import json
from pathlib import Path

from mipic_llm.errors import UserError, one_line
from mipic_llm.export.card import HUB_ID, PATH
from mipic_llm.export.portable import EmbeddingSpec


def check_name(name: str) -> None:
    """UserError for what is no owner/name."""
    if not HUB_ID.fullmatch(name):
        raise UserError(f"push: {name!r} is no id of the hub; give owner/name")


def push(folder: Path, name: str, spec: EmbeddingSpec, *, private: bool) -> str:
    """Upload the files of an export to the model `name`, which is made if it is not there. -> the
    commit's address.

    private: of a new one. The card's Python gets the id, and an adapter its base's id in place of a
    path. UserError where that has none, or the hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    card = (folder / "README.md").read_text("utf-8").replace(f'"{PATH}"', f'"{name}"')
    changed = {"README.md": card}
    adapter = folder / "adapter_config.json"
    if adapter.is_file() and spec.base_model != spec.base_name:
        if spec.base_name is None:
            raise UserError(f"push: the base of {folder} is a directory, which nobody else has; "
                            "push the merged model (--merged)")  # fmt: skip
        told = json.loads(adapter.read_text("utf-8"))
        told |= {"base_model_name_or_path": spec.base_name, "revision": spec.commit}
        changed[adapter.name] = json.dumps(told, indent=2, sort_keys=True) + "\n"
        own = folder / "config_sentence_transformers.json"
        told = json.loads(own.read_text("utf-8"))
        told.pop("base_beside", None)
        changed[own.name] = json.dumps(told, indent=2, sort_keys=True) + "\n"
    operations = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        at = path.relative_to(folder).as_posix()
        content = changed[at].encode() if at in changed else path
        operations.append(CommitOperationAdd(at, content))
    api = HfApi()
    try:
        api.create_repo(name, private=private, exist_ok=True)
        done = api.create_commit(name, operations, commit_message="Upload by mipic export")
    except Exception as error:  # of the hub, of the network
        kinds = {kind.__name__ for kind in type(error).__mro__}  # of the hub's own HTTP library
        what = "log in with `hf auth login`, or set HF_TOKEN to a token that may write there"
        if kinds & {"TransportError", "ConnectionError"}:
            what = "this machine does not reach the hub; export elsewhere, or push from a copy"
        raise UserError(f"push: {name} was not uploaded ({one_line(error)}); {what}") from error
    return str(done.commit_url)
