"""The function of a cell as an expression graph: dual numbers, differentiation, simplification, tracing."""
