"""The NumPy backend: the definition that every other one is tested against."""
