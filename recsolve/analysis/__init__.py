"""What can be said of a trajectory: conditioning, bounds on its error, the truth of a declared structure."""
