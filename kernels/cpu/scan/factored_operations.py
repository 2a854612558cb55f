"""The operations of a factored scan, numbered for the code that lists them and the loops that run the list."""

# An instruction is (operation, target register, source register, partial or matrix).
MULTIPLY, ADD, MIX, CLEAR = range(4)
