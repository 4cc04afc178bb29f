"""Triton's interpreter as the tests use it: import this before a kernel runs, or

python tests/interpreter.py PROGRAM [flags]
"""

from __future__ import annotations

import runpy
import sys
from typing import Any

import triton.language as tl
from triton.runtime import interpreter

_patch_all, _patch_tensor = interpreter._patch_lang, interpreter._patch_lang_tensor


def _once(fn: Any) -> Any:
    """A launch makes Triton's functions the interpreter's own, and gives them back at its end. So
    does each call of one kernel by another, for nothing: it was 0.4 of the time."""
    known = [tl, tl.core]
    seen = [x for x in fn.__globals__.values() if any(x is module for module in known)]
    if any(tl.core.is_builtin(module.load) for module in seen):
        return _patch_all(fn)
    return interpreter._LangPatchScope()


def _with_bounds(tensor: Any, scope: Any) -> None:
    """It reads a loop's bound with int() of a list of one, an error in numpy 2.4."""
    _patch_tensor(tensor, scope)
    scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())


interpreter._patch_lang, interpreter._patch_lang_tensor = _once, _with_bounds

if __name__ == "__main__":
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
