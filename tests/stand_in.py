"""A device that is not the host, on any machine: its tensors lie in host memory, but torch takes
them for those of a device of its own (`standin:0`).

As on a GPU, an operation on tensors of both devices is an error, and reading a value (`.item()`,
`.tolist()`, a boolean index, a copy that blocks) makes the host wait; each wait is noted with its
place in the package. Single numbers of the host may meet tensors of the device, as on a GPU.
Kernels for GPUs, streams and the memory of a GPU are not part of this.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._device import _device_constructors
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)


class _Module(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]


_setup_privateuseone_for_python_backend("standin", backend_module=_Module())
DEVICE = torch.device("standin", 0)
_device_constructors()  # remembers torch.tensor as it is; `with torch.device(..)` asks it
aten = torch.ops.aten
# Operations whose result the host must know before it goes on: values, or sizes made of them.
READS = {
    aten._local_scalar_dense.default, aten.is_nonzero.default, aten.equal.default,
    aten.nonzero.default, aten.masked_select.default, aten._unique2.default,
    aten.unique_dim.default, aten.unique_consecutive.default, aten.linalg_eigh.default,
    aten._linalg_eigh.default, aten._linalg_svd.default,
}  # fmt: skip
INDEXING = {
    aten.index.Tensor, aten.index_put.default, aten.index_put_.default,
    aten._index_put_impl_.default,
}  # fmt: skip
waits: list[tuple[str, str]] = []  # (what, the innermost place in the package)


def _note(what: object) -> None:
    frames = [f for f in traceback.extract_stack() if "/mipic_llm/" in f.filename]
    place = frames[-1].filename.rsplit("/mipic_llm/", 1)[1] if frames else "elsewhere"
    waits.append((str(what), f"{place}:{frames[-1].lineno}" if frames else place))


class There(Tensor):
    """A tensor on the device; `inner` has its values."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> There:
        made = Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(),
            dtype=inner.dtype, device=DEVICE,
        )  # fmt: skip
        made.inner = inner
        return made

    def tolist(self) -> Any:
        _note("tolist")
        return self.inner.tolist()

    def numpy(self, **_: Any) -> Any:
        raise TypeError("can't convert a tensor of a device to numpy; use Tensor.cpu() first")

    def __repr__(self) -> str:  # type: ignore[override]
        return f"There({self.inner!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _is_device(device: Any) -> bool:
    return device is not None and torch.device(device).type == DEVICE.type


def _tensors(values: Any) -> Iterator[Tensor]:
    """Those among the arguments of an operation, in lists too."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


def _each(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, (list, tuple)):
        return type(value)([_each(change, one) for one in value])
    return value


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    tensors = list(_tensors((*args, *kwargs.values())))
    known = {id(x.inner): x for x in tensors if isinstance(x, There)}
    target = there = bool(known)
    if kwargs.get("device") is not None:
        target = _is_device(kwargs["device"])
        kwargs = {**kwargs, "device": torch.device("cpu")} if target else kwargs
    if not there and not target:
        return func(*args, **kwargs)
    here = [x for x in tensors if not isinstance(x, There) and x.dim()]
    if func is aten._to_copy.default:
        if there != target and not kwargs.get("non_blocking") and tensors[0].numel():
            _note("copy to the device" if target else "copy to the host")
    elif func is aten.copy_.default:
        target = isinstance(args[0], There)
        blocking = not (args[2] if len(args) > 2 else kwargs.get("non_blocking"))
        if isinstance(args[1], There) != target and blocking:
            _note("copy")
    elif there and here:
        if func not in INDEXING:
            shapes = [tuple(x.shape) for x in here]
            raise RuntimeError(f"{func}: tensors of two devices, {DEVICE} and cpu {shapes}")
        _note("index on the host")
    masks = (x for x in tensors if x.dtype == torch.bool and x.dim() and x is not args[0])
    counted = func is aten.repeat_interleave.Tensor and kwargs.get("output_size") is None
    if there and (func in READS or counted or (func in INDEXING and next(masks, None) is not None)):
        _note(func)

    def inner(x: Tensor) -> Tensor:
        return x.inner if isinstance(x, There) else x

    def wrapped(x: Tensor) -> Tensor:
        return known[id(x)] if id(x) in known else There(x)

    kwargs = {name: _each(inner, value) for name, value in kwargs.items()}
    out = func(*_each(inner, tuple(args)), **kwargs)
    return _each(wrapped, out) if target else out


class _Mode(TorchDispatchMode):
    """For what is made on the device from nothing, or moved to it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _through_host(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """torch.tensor and its like, which dispatch nothing when they write to a device."""

    def call(data: Any, *args: Any, device: Any = None, **named: Any) -> Tensor:
        if isinstance(data, There):
            return data.to(device or data.device, named.get("dtype") or data.dtype)
        if _is_device(device):
            return make(data, *args, **named).to(device)
        return make(data, *args, **named, **({} if device is None else {"device": device}))

    return call


@contextmanager
def device() -> Iterator[torch.device]:
    """Inside, tensors can be made on the device or moved to it."""
    tensor, as_tensor, new = torch.tensor, torch.as_tensor, Tensor.new_tensor

    def new_tensor(self: Tensor, data: Any, **named: Any) -> Tensor:
        if isinstance(self, There):
            return torch.tensor(data, **{"dtype": self.dtype, "device": self.device, **named})
        return new(self, data, **named)

    torch.tensor, torch.as_tensor = _through_host(tensor), _through_host(as_tensor)
    Tensor.new_tensor = new_tensor
    try:
        with _Mode():
            yield DEVICE
    finally:
        torch.tensor, torch.as_tensor, Tensor.new_tensor = tensor, as_tensor, new
