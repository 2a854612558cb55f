"""Reading and writing flat arrays that are declared to the compiler not to overlap.

A loop over many arrays vectorises only if none that is written overlaps another one. LLVM finds that out by comparing
addresses before every row, and gives up where arrays are many. Here every place that is written is a scope of its own
(LLVM's ``alias.scope`` metadata), and all other reads and writes are declared to lie outside it. Callers must therefore
pass arrays of which the written ones overlap no other.

Places are not checked, and negative ones do not count from the end.
"""

from __future__ import annotations

from typing import Any

from recsolve.kernels.cpu.jit.decorators import BaseTuple, CPointer, cgutils, intrinsic, ir, types

_SCOPES = 32  # results from the 32nd on share a scope, which only costs comparisons


def _scope(module: Any, number: int) -> Any:
    domain = module.add_metadata([ir.MetaDataString(module, "recsolve")])
    return module.add_metadata([ir.MetaDataString(module, f"result {min(number, _SCOPES - 1)}"), domain])


def _outside(module: Any, number: int | None = None) -> Any:
    """Return the list of all scopes but one."""
    own = None if number is None else min(number, _SCOPES - 1)
    return module.add_metadata([_scope(module, scope) for scope in range(_SCOPES) if scope != own])


def start(context: Any, builder: Any, kind: Any, array: Any) -> Any:
    """Return the address of the first number of a flat array, or of what :func:`pointer` made of one."""
    if isinstance(kind, CPointer):
        return array
    return cgutils.create_struct_proxy(kind)(context, builder, value=array).data


def _address(context: Any, builder: Any, kind: Any, array: Any, place: Any) -> Any:
    return builder.gep(start(context, builder, kind, array), [place])


def _mark(instruction: Any, builder: Any, number: int | None) -> Any:
    """Say that an instruction is in the scope of result ``number`` and outside all others."""
    if number is not None:
        instruction.set_metadata("alias.scope", builder.module.add_metadata([_scope(builder.module, number)]))
    instruction.set_metadata("noalias", _outside(builder.module, number))
    return instruction


@intrinsic  # type: ignore[untyped-decorator]
def pointer(typing: Any, array: Any) -> Any:
    """Return where a flat array begins, as what ``get`` and ``put`` take too.

    An array is counted whenever it is passed on or taken out of a tuple, which costs as much as a short row. A pointer
    does not keep the array: it must be an argument of the caller, or one that :func:`keep` is called with at the end.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return start(context, builder, array, *arguments)

    return CPointer(array.dtype)(array), generate


@intrinsic  # type: ignore[untyped-decorator]
def keep(typing: Any, array: Any) -> Any:
    """Do nothing with an array, which therefore is not freed before."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.get_dummy_value()

    return types.void(array), generate


@intrinsic  # type: ignore[untyped-decorator]
def pointers(typing: Any, arrays: Any) -> Any:
    """Return the tuple of pointers of a tuple of arrays."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        found = [start(context, builder, k, builder.extract_value(arguments[0], i)) for i, k in enumerate(arrays)]
        return context.make_tuple(builder, signature.return_type, found)

    return BaseTuple.from_types([CPointer(kind.dtype) for kind in arrays])(arrays), generate


@intrinsic  # type: ignore[untyped-decorator]
def get(typing: Any, array: Any, place: Any) -> Any:
    """Return array[place] of a flat array that is not written."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _mark(builder.load(_address(context, builder, array, *arguments)), builder, None)

    return array.dtype(array, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def read(typing: Any, array: Any, place: Any) -> Any:
    """Return array[place] of a flat array that may overlap others."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_address(context, builder, array, *arguments))

    return array.dtype(array, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def write(typing: Any, array: Any, place: Any, value: Any) -> Any:
    """Set array[place] of a flat array that may overlap others."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        base, where, x = arguments
        builder.store(x, _address(context, builder, array, base, where))
        return context.get_dummy_value()

    return types.void(array, types.int64, array.dtype), generate


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def take(typing: Any, number: Any, array: Any, place: Any) -> Any:
    """Return array[place], which is about to become the result with this number."""
    scope = number.literal_value

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _mark(builder.load(_address(context, builder, array, *arguments[1:])), builder, scope)

    return array.dtype(number, array, types.int64), generate


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def put(typing: Any, number: Any, array: Any, place: Any, value: Any) -> Any:
    """Set array[place], the result with this number, to a value."""
    scope = number.literal_value

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, base, where, x = arguments
        _mark(builder.store(x, _address(context, builder, array, base, where)), builder, scope)
        return context.get_dummy_value()

    return types.void(number, array, types.int64, array.dtype), generate


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def add(typing: Any, number: Any, array: Any, place: Any, value: Any) -> Any:
    """Add a value to array[place], the result with this number."""
    scope = number.literal_value

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, base, where, x = arguments
        address = _address(context, builder, array, base, where)
        total = builder.fadd(_mark(builder.load(address), builder, scope), x)
        _mark(builder.store(total, address), builder, scope)
        return context.get_dummy_value()

    return types.void(number, array, types.int64, array.dtype), generate
