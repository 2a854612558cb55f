"""Recurrent layers of torch that are solved in parallel over time, train, and say when a solve was not met."""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError("recsolve.nn needs torch: pip install 'recsolve[torch]'") from error

from recsolve.nn.counters import Counters, report, reset_counters
from recsolve.nn.recurrent import Recurrent
from recsolve.nn.seen import watched
from recsolve.nn.solving import ConvergenceWarning, Settings
from recsolve.nn.spectral import clip_recurrent_, exponents, init_lyapunov_, lyapunov_penalty
from recsolve.nn.torch_layers import GRU, LSTM, RNN

__all__ = [
    "GRU", "LSTM", "RNN", "ConvergenceWarning", "Counters", "Recurrent", "Settings", "clip_recurrent_", "exponents",
    "init_lyapunov_", "lyapunov_penalty", "report", "reset_counters", "watched",
]  # fmt: skip


def __dir__() -> list[str]:
    return sorted(__all__)
