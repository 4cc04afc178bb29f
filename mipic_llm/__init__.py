"""mipic_llm: a DeepSpeed-scaled trainer for Matryoshka text-embedding models."""

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mipic_llm.api import compare, evaluate, export, merge, mine, train
    from mipic_llm.api.run import Model, Run, load
    from mipic_llm.errors import UserError
    from mipic_llm.report.scores import Scores
    from mipic_llm.training.callbacks import Callback

__version__ = "0.1.0"
__all__ = [
    "Callback",
    "Model",
    "Run",
    "Scores",
    "UserError",
    "compare",
    "evaluate",
    "export",
    "load",
    "merge",
    "mine",
    "train",
]

_HOMES = {"UserError": "errors", "Callback": "training.callbacks", "Scores": "report.scores",
          "Model": "api.run", "Run": "api.run", "load": "api.run"}  # fmt: skip


def __getattr__(name: str) -> Any:
    """The API of `mipic_llm.api`, imported at its first use: `import mipic_llm` takes no time."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES.get(name, 'api')}"), name)


class _Package(ModuleType):
    """mipic_llm.export stays the function, though the room mipic_llm/export has the same name."""

    export = property(lambda self: __getattr__("export"), lambda self, room: None)


sys.modules[__name__].__class__ = _Package


def __dir__() -> list[str]:
    return [*globals(), *__all__]
