"""Checks that a user runs on what they define: each raises AssertionError with the law that does not hold."""
