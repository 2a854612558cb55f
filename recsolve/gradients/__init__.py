"""Gradients at a solution: adjoint and tangent, and the local sensitivities that they are made of."""
