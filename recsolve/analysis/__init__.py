"""Analysis of a trajectory: conditioning, bounds on its error, and whether a declared structure is true."""
