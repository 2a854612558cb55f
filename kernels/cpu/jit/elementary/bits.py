"""Operations of which Numba has no vectorising form: bits of floats, exact products, rounding.

Numba widens arithmetic of 32-bit integers to 64 bits and calls the C library for much else, so these are LLVM
instructions and intrinsics, in forms that LLVM turns into vectors on any target. The integers that they make are kept
in floats: adding ``magic(dtype)`` to a number rounds it to an integer k and leaves k in the last bits of the sum, which
is called ``shifted`` below.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from recsolve.kernels.cpu.jit import decorators
from recsolve.kernels.cpu.jit.decorators import intrinsic, ir, types

Scalar = Any  # a float32 or a float64, while a function is compiled
Inlined = TypeVar("Inlined", bound=Callable[..., Any])

_MANTISSA = {32: 23, 64: 52}
_BIAS = {32: 127, 64: 1023}
# Numba gives its fastmath flags to instructions that have none; this one is void on products and keeps them separate.
_NEVER_FUSED = ("arcp",)


def inlined(function: Inlined) -> Inlined:
    """Compile a scalar function into its callers, however large it is: a call that is left stops vectorisation.

    Contraction is safe in what is written here: reductions multiply with constants that end in zeros or use
    :data:`fma`, and :data:`product` is never fused.
    """
    return decorators.inlined(function, {"contract"})


def magic(dtype: Any) -> Any:
    """Return 1.5 * 2^m, m the bits of the mantissa: next to it floats are the integers."""
    return dtype(1.5 * 2.0 ** np.finfo(dtype).nmant)


def _pattern(value: float, bits: int) -> int:
    """Return the bits of a float as an integer."""
    array = np.array(value, f"f{bits // 8}")
    return int(array.view(f"u{bits // 8}"))


class _Bits:
    """The integer that has the bits of a float of LLVM, while instructions are emitted."""

    def __init__(self, builder: Any, value: Any):
        self.builder, self.kind = builder, value.type
        self.bits = 32 if isinstance(value.type, ir.FloatType) else 64
        self.mantissa, self.bias = _MANTISSA[self.bits], _BIAS[self.bits]
        self.integer = builder.bitcast(value, ir.IntType(self.bits))

    def pattern(self, value: float) -> int:
        return _pattern(value, self.bits)

    def constant(self, value: int) -> Any:
        return ir.Constant(ir.IntType(self.bits), value)

    def of_shifted(self, offset: int) -> Any:
        """Return k + ``offset``."""
        start = self.pattern(1.5 * 2.0**self.mantissa)
        return self.builder.add(self.integer, self.constant(offset - start))

    def power(self, biased: Any) -> Any:
        """Return the power of two with this biased exponent."""
        return self.number(self.builder.shl(biased, self.constant(self.mantissa)))

    def number(self, integer: Any) -> Any:
        return self.builder.bitcast(integer, self.kind)

    def from_root(self) -> Any:
        """Return the bits, moved so that the exponent changes at sqrt(1/2) and not at 1."""
        offset = self.pattern(1.0) - self.pattern(0.5**0.5)
        return self.builder.add(self.integer, self.constant(offset))


def _intrinsic(arity: int, emit: Callable[..., Any], truth: bool = False) -> Any:
    """Return an intrinsic of ``arity`` floats of one type: ``emit(builder, *values)`` writes its instructions."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return emit(builder, *arguments)

    def unary(typing: Any, x: Any) -> Any:
        return (types.boolean if truth else x)(x), codegen

    def binary(typing: Any, x: Any, y: Any) -> Any:
        return x(x, x), codegen

    def ternary(typing: Any, x: Any, y: Any, z: Any) -> Any:
        return x(x, x, x), codegen

    return intrinsic((unary, binary, ternary)[arity - 1])


def _of_llvm(name: str, arity: int) -> Any:
    """Return the intrinsic ``llvm.name``; these become one instruction each, of vectors too."""

    def emit(builder: Any, *values: Any) -> Any:
        kind = values[0].type
        function = builder.module.declare_intrinsic(f"llvm.{name}", [kind], ir.FunctionType(kind, [kind] * arity))
        return builder.call(function, values)

    return _intrinsic(arity, emit)


absolute = _of_llvm("fabs", 1)
sqrt = _of_llvm("sqrt", 1)
floor = _of_llvm("floor", 1)
ceil = _of_llvm("ceil", 1)
rint = _of_llvm("rint", 1)  # to even at ties
trunc = _of_llvm("trunc", 1)
copysign = _of_llvm("copysign", 2)


def _fma(builder: Any, x: Any, y: Any, z: Any) -> Any:
    return builder.fma(x, y, z)


def _product(builder: Any, x: Any, y: Any) -> Any:
    return builder.fmul(x, y, flags=_NEVER_FUSED)


def _power_of_two(builder: Any, shifted: Any) -> Any:
    bits = _Bits(builder, shifted)
    return bits.power(bits.of_shifted(bits.bias))


def _scaled(builder: Any, x: Any, shifted: Any) -> Any:
    bits = _Bits(builder, shifted)
    both = bits.of_shifted(2 * bits.bias)
    half = builder.lshr(both, bits.constant(1))
    once = builder.fmul(x, bits.power(half), flags=_NEVER_FUSED)
    return builder.fmul(once, bits.power(builder.sub(both, half)), flags=_NEVER_FUSED)


def _exponent(builder: Any, x: Any) -> Any:
    bits = _Bits(builder, x)
    biased = builder.lshr(bits.from_root(), bits.constant(bits.mantissa))
    # Integers below 2^m are the last bits of the floats from 2^m on: no conversion, which 64-bit vectors may lack.
    start = 2.0**bits.mantissa
    number = bits.number(builder.or_(biased, bits.constant(bits.pattern(start))))
    return builder.fsub(number, ir.Constant(x.type, start + bits.bias))


def _significand(builder: Any, x: Any) -> Any:
    bits = _Bits(builder, x)
    exponent = builder.and_(bits.from_root(), bits.constant(-(1 << bits.mantissa)))
    return bits.number(builder.add(builder.sub(bits.integer, exponent), bits.constant(bits.pattern(1.0))))


def _bit(place: int) -> Any:
    def emit(builder: Any, shifted: Any) -> Any:
        bits = _Bits(builder, shifted)
        return builder.icmp_unsigned("!=", builder.and_(bits.integer, bits.constant(1 << place)), bits.constant(0))

    return _intrinsic(1, emit, truth=True)


fma = _intrinsic(3, _fma)  # x * y + z, rounded once; slow where the processor has no such instruction
product = _intrinsic(2, _product)  # x * y, rounded
power_of_two = _intrinsic(1, _power_of_two)  # 2^k of a shifted k, as long as that is a normal number
scaled = _intrinsic(2, _scaled)  # x * 2^k in two halves, so that subnormal numbers and infinity come out
exponent = _intrinsic(1, _exponent)  # e of a normal x = 2^e * significand
significand = _intrinsic(1, _significand)  # from sqrt(1/2) to sqrt(2)
odd = _bit(0)  # whether the shifted k is odd
odd_half = _bit(1)  # whether floor(k / 2) is


def polynomial(coefficients: tuple[float, ...]) -> Any:
    """Return an intrinsic for the polynomial with these coefficients, lowest first, by Horner's rule."""

    def emit(builder: Any, x: Any) -> Any:
        *lower, value = [ir.Constant(x.type, float(c)) for c in coefficients]
        for coefficient in reversed(lower):
            value = builder.fadd(builder.fmul(value, x), coefficient)
        return value

    return _intrinsic(1, emit)
