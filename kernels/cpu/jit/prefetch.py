"""Prefetching memory ahead of its use, where the hardware does not recognise the pattern."""

from __future__ import annotations

from typing import Any

from recsolve.base.arrays import Array
from recsolve.kernels.cpu.jit.aliasing import start
from recsolve.kernels.cpu.jit.decorators import cgutils, inlined, intrinsic, ir, types

LINE = 64  # bytes of a line of the cache


@intrinsic  # type: ignore[untyped-decorator]
def _prefetch(typing: Any, base: Any, place: Any) -> Any:
    """Prefetch the cache line that holds ``base[place]``. A place outside the array does no harm."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.bitcast(
            builder.gep(start(context, builder, base, arguments[0]), [arguments[1]]), cgutils.voidptr_t
        )
        number = ir.IntType(32)
        form = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", [cgutils.voidptr_t], form)
        read, keep, data = (ir.Constant(number, value) for value in (0, 3, 1))
        builder.call(function, [pointer, read, keep, data])
        return context.get_dummy_value()

    return types.void(base, types.intp), generate


@inlined
def prefetch(base: Array, place: int, count: int, line: int) -> None:
    """Prefetch ``count`` contiguous numbers, of which a line of the cache has ``line``."""
    for i in range(0, count, line):
        _prefetch(base, place + i)
