"""Loops with holes for the arithmetic of a cell. They are read as text, and Python can read them too."""
