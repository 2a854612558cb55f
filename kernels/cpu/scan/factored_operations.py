"""The operations of a factored scan: what writes their list and the loops that follow it share these numbers."""

# An instruction is (operation, target register, source register, partial or matrix).
MULTIPLY, ADD, MIX, CLEAR = range(4)
