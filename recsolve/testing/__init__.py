"""Checks that a user runs on what they define: each raises AssertionError with the law that does not hold."""

from recsolve.testing.mixing import check_mixing
from recsolve.testing.monoid import check_monoid

__all__ = ["check_mixing", "check_monoid"]


def __dir__() -> list[str]:
    return sorted(__all__)
