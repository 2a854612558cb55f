"""Array kinds: NumPy, CuPy and torch in, the same kind out.

Inside the library an array is *native*: a NumPy array, or a CuPy array on the GPU. torch tensors are viewed as native
arrays without a copy (CPU tensors as NumPy, CUDA tensors as CuPy through DLPack) and results are viewed back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from typing_extensions import TypeVar  # with defaults, which Python has from 3.13 on

    UserArray = TypeVar("UserArray", covariant=True, default=Any)
else:
    from typing import TypeVar

    UserArray = TypeVar("UserArray", covariant=True)  # what a user gives and gets: of NumPy arrays Array, else Any

Array: TypeAlias = npt.NDArray[Any]
Namespace: TypeAlias = Any  # the numpy or the cupy module
Kind: TypeAlias = Literal["numpy", "cupy", "torch"]

_CUDA = 2  # the code of such devices in DLPack
_KINDS: dict[type, Kind] = {}  # of types of these libraries; of others it depends on where the array lies
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
DISCRETE: tuple[np.dtype[Any], ...] = tuple(map(np.dtype, "?bhilBHIL"))


def kind_of(x: object) -> Kind:
    """Return which kind of array ``x`` is: other arrays on a GPU count as CuPy, lists and numbers as NumPy."""
    known = _KINDS.get(type(x))
    if known is not None:
        return known
    root = type(x).__module__.partition(".")[0]
    if root == "numpy" or root == "cupy" or root == "torch":
        return _KINDS.setdefault(type(x), root)  # type: ignore[arg-type]
    return "cupy" if _on_gpu(x) else "numpy"


def _on_gpu(x: object) -> bool:
    """Return whether an array of another library (Numba, JAX) lies on a CUDA device."""
    if hasattr(type(x), "__cuda_array_interface__"):
        return True
    ask: Any = getattr(x, "__dlpack_device__", None)
    return ask is not None and ask()[0] == _CUDA


def address(x: Array) -> int:
    """Return where the first number of a native array lies, on its device."""
    return int(x.data.ptr if kind_of(x) == "cupy" else x.ctypes.data)  # type: ignore[attr-defined]


def common_kind(arrays: Mapping[str, object]) -> Kind:
    """Return the one kind of all named arrays (``None`` entries are skipped).

    Raises
    ------
    TypeError
        When kinds are mixed, or devices of tensors are; the message names each argument and its kind or device.
    """
    kinds = {name: kind_of(x) for name, x in arrays.items() if x is not None}
    if len(set(kinds.values())) > 1:
        seen = ", ".join(f"{name} is {kind}" for name, kind in kinds.items())
        raise TypeError(f"array kinds are mixed: {seen}; convert them to one kind first")
    check_devices(arrays)
    return next(iter(kinds.values()), "numpy")


def check_devices(arrays: Mapping[str, Any]) -> None:
    """Raise TypeError unless the tensors among named arrays are on one device; the message names each and its own."""
    one_device({name: x.device for name, x in arrays.items() if kind_of(x) == "torch" and hasattr(x, "device")})


def one_device(devices: Mapping[str, Any]) -> None:
    """Raise TypeError unless the devices of named arguments are the same."""
    if len(set(devices.values())) > 1:
        seen = ", ".join(f"{name} is on {device}" for name, device in devices.items())
        raise TypeError(f"devices are mixed: {seen}; move the tensors to one device first")


def namespace(x: object) -> Namespace:
    """Return the module (numpy or cupy) that a native array belongs to."""
    if type(x) is np.ndarray:  # nearly always, and a call less
        return np
    if kind_of(x) == "cupy":
        import cupy

        return cupy
    return np


def to_native(x: Any, name: str, dtypes: Sequence[np.dtype[Any]] = FLOATS) -> Array:
    """View ``x`` as a native array of one of ``dtypes``, without copying arrays.

    A tensor that gradients can go back to is viewed by :func:`recsolve.base.links.to_linked` instead.

    Raises
    ------
    TypeError
        When the dtype is another one, an array is masked, or a tensor requires grad.
    ImportError
        For an array on a GPU without CuPy; the message names the extra.
    """
    native = _view(x, name, dtypes)
    if native.dtype == object and object not in dtypes:
        wanted = " or ".join(dtype.name for dtype in dtypes)
        raise TypeError(f"{name} is {type(x).__name__}, whose entries are no numbers; wanted an array of {wanted}")
    _check_dtype(native, name, dtypes)
    return native


def _check_dtype(x: Any, name: str, dtypes: Sequence[np.dtype[Any]]) -> None:
    if isinstance(x.dtype, np.dtype) and x.dtype in dtypes:
        return  # names take long
    names = [dtype.name for dtype in dtypes]
    if str(x.dtype).removeprefix("torch.") not in names:
        way = "give real and imaginary parts, as two arrays" if "complex" in str(x.dtype) else "convert it first"
        raise TypeError(f"{name} has dtype {x.dtype}; wanted {' or '.join(names)} ({way})")


def _view(x: Any, name: str, dtypes: Sequence[np.dtype[Any]]) -> Array:
    kind = kind_of(x)
    if kind == "cupy":
        return _view_cuda(x, name)
    if kind == "torch":
        if not hasattr(x, "is_cuda") or not hasattr(x, "requires_grad"):
            raise TypeError(f"{name} is a {type(x).__name__}; wanted a tensor (pad packed sequences, or use reset=)")
        _check_dtype(x, name, dtypes)
        if x.requires_grad:
            raise TypeError(f"{name} requires grad, and the result would carry no gradient; pass {name}.detach()")
        return _view_torch(x, name)
    if np.ma.isMaskedArray(x):
        raise TypeError(f"{name} is a masked array, of which the mask would be lost; pass {name}.filled(...)")
    try:
        return np.asarray(x)
    except ValueError as error:
        raise ValueError(f"{name} is not a rectangular array: {error}") from error


def _view_torch(x: Any, name: str) -> Array:
    try:
        return _view_cuda(x, name) if x.is_cuda else x.numpy()
    except RuntimeError as error:
        import torch

        if not torch._C._functorch.is_functorch_wrapped_tensor(x):
            raise
        raise TypeError(
            f"{name} is a tensor under torch.func, which cannot look into a recurrence; take "
            "recsolve.interop.autograd.solve_cell"
        ) from error


def _view_cuda(x: Any, name: str) -> Array:
    try:
        import cupy
    except ImportError as error:
        raise ImportError(
            f"{name} is on a GPU, which needs CuPy: pip install 'recsolve[cuda13]' (or [cuda12])"
        ) from error
    if isinstance(x, cupy.ndarray):
        return x  # type: ignore[no-any-return]
    if kind_of(x) == "torch":
        return _view_tensor(x, cupy)
    if hasattr(x, "__cuda_array_interface__"):
        return cupy.asarray(x)  # type: ignore[no-any-return]
    return cupy.from_dlpack(x)  # type: ignore[no-any-return]


def _view_tensor(x: Any, cupy: Namespace) -> Array:
    """View a tensor on a GPU: what :func:`owner_of` knows, and several times faster than DLPack where streams are one.

    DLPack puts what one library has launched on its stream before what the other one launches on its own.
    """
    import torch

    dtype, device = _dtypes_of_tensors().get(x.dtype), x.device.index
    plain = x.layout is torch.strided and not (x.is_conj() or x.is_neg())
    if dtype is None or not plain or not x.numel():
        return cupy.from_dlpack(x)  # type: ignore[no-any-return]
    begins = x.data_ptr()
    if torch._C._cuda_getCurrentRawStream(device) != cupy.cuda.get_current_stream(device).ptr:
        cupy.from_dlpack(x)
    strides = [step * dtype.itemsize for step in x.stride()]
    nbytes = dtype.itemsize + sum((n - 1) * step for n, step in zip(x.shape, strides, strict=True))
    memory = cupy.cuda.UnownedMemory(begins, nbytes, x, device)
    found: Array = cupy.ndarray(tuple(x.shape), dtype, cupy.cuda.MemoryPointer(memory, 0), strides)
    return found


@lru_cache(maxsize=1)
def _dtypes_of_tensors() -> Mapping[Any, np.dtype[Any]]:
    """Return the dtypes of NumPy by those of torch."""
    import torch

    names = ["float16", "float32", "float64", "complex64", "complex128", "bool"]
    names += ["uint8", "int8", "int16", "int32", "int64"]
    return {getattr(torch, name): np.dtype(name) for name in names}


def owner_of(x: Any) -> Any:
    """Return what a native array views the memory of: a tensor, another array, or itself.

    Of one that CuPy has taken through DLPack that is not known.
    """
    if kind_of(x) == "cupy":
        return getattr(x.data.mem, "_owner", x)
    while isinstance(x, np.ndarray):
        x = x.base
    return x


def from_native(x: Array, kind: Kind) -> Any:
    """View a native array as an array of the user's ``kind``."""
    if kind != "torch":
        return x
    import torch

    # torch refuses negative strides (a reversed direction), or aborts, and warns of read-only arrays: those are copied.
    forwards = all(s >= 0 for s in x.strides)
    if kind_of(x) == "cupy":
        return torch.from_dlpack(x if forwards else x.copy())
    return torch.from_numpy(x if x.flags.writeable and forwards else x.copy())


def common_dtype(arrays: Mapping[str, Array]) -> np.dtype[Any]:
    """Return the one dtype of all named native arrays.

    Raises
    ------
    TypeError
        When dtypes are mixed; the message names each argument and its dtype.
    """
    dtypes = {name: x.dtype for name, x in arrays.items()}
    if len(set(dtypes.values())) > 1:
        seen = ", ".join(f"{name} is {dtype}" for name, dtype in dtypes.items())
        raise TypeError(f"dtypes are mixed: {seen}; convert with .astype, or a cell with cell.astype(dtype)")
    return next(iter(dtypes.values()))


def broadcast(x: Array, shape: tuple[int, ...]) -> Array:
    """Return ``x`` broadcast to a shape, or itself if it has that shape, which is ten times faster than NumPy."""
    return x if x.shape == shape else namespace(x).broadcast_to(x, shape)


def picked(x: Array, lead: tuple[int, ...], index: Any) -> Array:
    """Return x[index] of an array (*lead, ...), of whose leading axes some may be 1."""
    return namespace(x).broadcast_to(x, (*lead, *x.shape[len(lead) :]))[index]  # type: ignore[no-any-return]


@lru_cache(maxsize=4096)
def slowest_first(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, ...]:
    """Return axes of these sizes and strides from the slowest to the fastest in memory."""
    return tuple(sorted(range(len(shape)), key=lambda axis: -abs(strides[axis]) if shape[axis] > 1 else 0))


def memory_order(x: Array, axes: int) -> tuple[int, ...]:
    """Return the first ``axes`` axes of ``x`` sorted from the slowest to the fastest in memory."""
    strides = getattr(x, "strides", None) or (0,) * x.ndim
    return slowest_first(tuple(x.shape[:axes]), tuple(strides[:axes]))


def empty_in_order(shape: tuple[int, ...], like: Array, axes: int) -> Array:
    """Allocate ``shape`` with its first ``axes`` axes in the memory order of those of ``like``.

    Data given as a (T, B, D) view of a (B, T, D) buffer then gives results that are views of (B, T, D) buffers.
    """
    return ordered_empty(shape, like, memory_order(like, axes))


def ordered_empty(shape: tuple[int, ...], like: Array, first: tuple[int, ...]) -> Array:
    """Allocate ``shape`` in the kind and dtype of ``like``, its first axes in this order, the slowest first."""
    order, back = _orders(first, len(shape))
    if back is None:
        return namespace(like).empty(shape, dtype=like.dtype)  # type: ignore[no-any-return]
    buffer = namespace(like).empty([shape[axis] for axis in order], dtype=like.dtype)
    return buffer.transpose(back)  # type: ignore[no-any-return]


@lru_cache(maxsize=1024)
def _orders(first: tuple[int, ...], count: int) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """Return the order of all axes of which only the first are permuted, and the way back if there is one."""
    order, given = (*first, *range(len(first), count)), tuple(range(count))
    return order, None if order == given else tuple(map(order.index, given))


def matmul_last(x: Array, matrix: Array) -> Array:
    """Apply ``matrix`` (m, n) to the last axis of ``x`` (..., n) as one product, keeping the memory order of x."""
    leading = x.ndim - 1
    if leading == 0:
        return matrix @ x
    order = memory_order(x, leading)
    moved = x.transpose(*order, leading)
    product = moved.reshape(-1, x.shape[-1]) @ matrix.T if moved.size else _no_rows(x, matrix)
    shaped = product.reshape(*moved.shape[:-1], matrix.shape[0])
    return shaped.transpose(*np.argsort(order), leading)


def _no_rows(x: Array, matrix: Array) -> Array:
    rows = int(np.prod(x.shape[:-1]))
    return namespace(x).zeros((rows, matrix.shape[0]), dtype=x.dtype)  # type: ignore[no-any-return]


def to_host(x: Array) -> Array:
    """Copy a native array to NumPy (a no-op for NumPy arrays)."""
    return x if type(x) is np.ndarray or kind_of(x) != "cupy" else x.get()  # type: ignore[attr-defined]


def is_discrete(dtype: np.dtype[Any]) -> bool:
    """Return whether numbers of a dtype are integers or bools, for which equality is the test."""
    return dtype.kind in "biu"


def difference(x: Array, y: Array) -> Array:
    """Return x - y; of integers and bools, whose difference may overflow and says nothing, 1 where they differ."""
    return (x != y).view(np.int8) if is_discrete(x.dtype) else x - y


def same_bits(x: Array, y: Array) -> bool:
    """Return whether arrays are equal, NaN being equal to NaN."""
    return x.shape == y.shape and bool(((x == y) | ((x != x) & (y != y))).all())


def freeze(x: Array) -> Array:
    """Return a read-only view, for kinds that have read-only arrays (NumPy)."""
    if type(x) is np.ndarray or kind_of(x) == "numpy":
        x = x.view()
        x.flags.writeable = False
    return x


def all_finite(x: Array) -> bool:
    """Return whether every entry is finite."""
    return bool(to_host(namespace(x).isfinite(x).all()))
