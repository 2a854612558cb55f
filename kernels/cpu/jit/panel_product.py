"""Products of small matrices with the states of some sequences, held in vector registers.

A block is what some panels of outputs are for up to four sequences: one chain of fused products per number, over the
inputs in their order, so a sequence gets the same bits whatever block it is in. A weight is loaded once per block, and
sums stay in registers until they are complete; a library of linear algebra would pack the matrix anew at every step.

Matrices are packed into panels by :mod:`recsolve.kernels.cpu.jit.panel_packing`. Importing this module imports numba.
"""

from __future__ import annotations

from typing import Any

from recsolve.kernels.cpu.jit.aliasing import start
from recsolve.kernels.cpu.jit.decorators import cgutils, intrinsic, ir, types


class _Block:
    """Writes the instructions of one block."""

    def __init__(self, builder: Any, number: Any, shape: tuple[int, int, int, int]):
        self.builder, self.number = builder, number
        self.sequences, self.panels, self.length, self.vectors = shape
        self.vector = ir.VectorType(number, self.length)
        self.size = 4 if isinstance(number, ir.FloatType) else 8
        self.word = ir.IntType(64)

    def sums(self, x: Any, x_0: Any, x_s: Any, n: Any, w: Any, w_0: Any, w_p: Any) -> list[Any]:
        """Return the sums over n inputs, of each sequence, panel and vector."""
        b, width = self.builder, self.length * self.vectors
        madd = self._intrinsic("llvm.fmuladd", self.vector, [self.vector] * 3)
        before, body, after = b.block, b.append_basic_block("sum"), b.append_basic_block("summed")
        b.branch(body)
        b.position_at_end(body)
        i = b.phi(self.word)
        sums = [b.phi(self.vector) for _ in range(self.sequences * self.panels * self.vectors)]
        inputs = [self._spread(self._load(x, [x_0, b.mul(self._of(j), x_s), i])) for j in range(self.sequences)]
        weights = [
            self._load(w, [w_0, b.mul(self._of(p), w_p), b.mul(i, self._of(width)), self._of(v * self.length)], True)
            for p in range(self.panels)
            for v in range(self.vectors)
        ]
        pairs = [(weight, value) for value in inputs for weight in weights]
        new = [b.call(madd, [*pair, old]) for pair, old in zip(pairs, sums, strict=True)]
        following = b.add(i, self._of(1))
        b.cbranch(b.icmp_signed("<", following, n), body, after)
        for phi, zero, sum_so_far in zip([i, *sums], [self._of(0), *self._zeros(sums)], [following, *new], strict=True):
            phi.add_incoming(zero, before)
            phi.add_incoming(sum_so_far, body)
        b.position_at_end(after)
        return new

    def store(self, sums: list[Any], y: Any, y_0: Any, y_s: Any, places: Any, valid: Any, first: Any) -> None:
        """Store each vector where ``places`` says, the first ``valid`` numbers of it."""
        b, count = self.builder, self.panels * self.vectors
        for v in range(count):
            place, number = (b.load(b.gep(table, [b.add(first, self._of(v))])) for table in (places, valid))
            place = b.add(y_0, place)
            whole = b.icmp_signed("==", number, self._of(self.length))
            with b.if_else(whole) as (then, otherwise):
                with then:
                    for j in range(self.sequences):
                        b.store(sums[j * count + v], self._at(y, [place, b.mul(self._of(j), y_s)]), align=self.size)
                with otherwise:
                    self._store_part(sums[v::count], y, y_s, place, number)

    def _store_part(self, sums: list[Any], y: Any, y_s: Any, place: Any, number: Any) -> None:
        b = self.builder
        words = ir.VectorType(self.word, self.length)
        mask = b.icmp_signed("<", ir.Constant(words, list(range(self.length))), self._spread(number, words))
        for j, x in enumerate(sums):
            target = self._at(y, [place, b.mul(self._of(j), y_s)])
            kinds = [x.type, target.type, ir.IntType(32), mask.type]
            store = self._intrinsic("llvm.masked.store", ir.VoidType(), kinds, ".p0")
            b.call(store, [x, target, ir.Constant(ir.IntType(32), self.size), mask])

    def _intrinsic(self, name: str, result: Any, kinds: list[Any], rest: str = "") -> Any:
        title = f"{name}.v{self.length}f{8 * self.size}{rest}"
        return cgutils.get_or_insert_function(self.builder.module, ir.FunctionType(result, kinds), title)

    def _of(self, number: int) -> Any:
        return ir.Constant(self.word, number)

    def _zeros(self, sums: list[Any]) -> list[Any]:
        return [ir.Constant(self.vector, [0.0] * self.length)] * len(sums)

    def _at(self, base: Any, terms: list[Any], vector: bool = True) -> Any:
        address = base
        for term in terms:
            address = self.builder.gep(address, [term])
        return self.builder.bitcast(address, self.vector.as_pointer()) if vector else address

    def _load(self, base: Any, terms: list[Any], vector: bool = False) -> Any:
        return self.builder.load(self._at(base, terms, vector), align=self.size)

    def _spread(self, x: Any, kind: Any = None) -> Any:
        """Return a vector of equal numbers."""
        kind = self.vector if kind is None else kind
        one = self.builder.insert_element(ir.Constant(kind, ir.Undefined), x, ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), self.length), [0] * self.length)
        return self.builder.shuffle_vector(one, one, zeros)


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def block(typing: Any, sequences: Any, panels: Any, length: Any, vectors: Any, x: Any, x_0: Any, x_s: Any, n: Any,
          w: Any, w_0: Any, w_p: Any, y: Any, y_0: Any, y_s: Any, places: Any, valid: Any,
          first: Any) -> Any:  # fmt: skip
    """Multiply panels of a matrix with the inputs of sequences; the first four arguments are literal numbers.

    Input i of sequence j is x[x_0 + j x_s + i], of n; panel p begins at w[w_0 + p w_p]. Vector v of sequence j goes to
    y[y_0 + places[first + v] + j y_s], its first valid[first + v] numbers.
    """
    shape = tuple(number.literal_value for number in (sequences, panels, length, vectors))

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = dict(zip(("x", "w", "y", "places", "valid"), (x, w, y, places, valid), strict=True))
        names = ("x", "x_0", "x_s", "n", "w", "w_0", "w_p", "y", "y_0", "y_s", "places", "valid", "first")
        given = dict(zip(names, arguments[4:], strict=True))
        given |= {name: start(context, builder, kind, given[name]) for name, kind in kinds.items()}
        writer = _Block(builder, context.get_data_type(x.dtype), shape)
        sums = writer.sums(*(given[name] for name in names[:7]))
        writer.store(sums, *(given[name] for name in names[7:]))
        return context.get_dummy_value()

    word = types.int64
    kinds = (x, word, word, word, w, word, word, y, word, word, places, valid, word)
    return types.void(sequences, panels, length, vectors, *kinds), generate
