"""What a call over ranks is to take, predicted from pieces that are measured apart from it.

    time(p) = rounds * own(T / p) + messages * (message(p) + (p - 1) * bytes / bandwidth(p))

``own(n)`` is the call on one rank that holds n steps, measured through the same functions in a group of one rank: what
distribution adds to the work of a rank is in it (summaries, steps that are to show what is forgotten, fixed cost of a
call). Messages, their bytes and rounds are counted. Latency and bandwidth are those of the link. Nothing is fitted to
the times that are predicted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log, log2

import numpy as np

RANKS = (1, 2, 4, 8, 64, 1024)  # for which a call is predicted


@dataclass(frozen=True)
class Link:
    """What it takes some ranks to exchange messages.

    Attributes
    ----------
    ranks : int
    latency : float
        Seconds of an all-gather of a few bytes.
    message : float
        Seconds that a message of recsolve of a few bytes takes longer than on one rank; the latency at least.
    bandwidth : float
        Bytes that each rank receives from the others per second, in all-gathers of 1 to 64 MB.
    """

    ranks: int
    latency: float
    message: float
    bandwidth: float


@dataclass(frozen=True)
class Cost:
    """The cost of one call, by ranks.

    Parameters
    ----------
    own : mapping of int to float
        Seconds on one rank by the steps that it holds.
    links : sequence of Link
        Of groups of two ranks and more, as were measured.
    ring : bool
        Whether a message passes all ranks one after the other, as with gloo; else it takes as many hops as a tree
        is high. It says how latency grows beyond the largest group that was measured.
    messages : int
        Of one call.
    size : float
        Bytes that a rank sends with each.
    rounds : float
        How often a rank does its own work.

    Examples
    --------
    >>> link = Link(2, latency=2e-5, message=3e-5, bandwidth=1e11)
    >>> cost = Cost({1000: 1e-2, 500: 5e-3, 250: 3e-3}, [link], ring=False, messages=2, size=4096)
    >>> [round(1e3 * cost.seconds(p, 1000), 3) for p in (1, 2, 4)]
    [10.0, 5.06, 3.12]
    """

    own: Mapping[int, float]
    links: Sequence[Link]
    ring: bool
    messages: int = 0
    size: float = 0.0
    rounds: float = 1.0

    def seconds(self, ranks: int, steps: int) -> float:
        """Return how long a call takes whose steps are shared by some ranks."""
        own = self.rounds * self.own_seconds(-(-steps // ranks))
        return own if ranks == 1 else own + self.messages * self.message_seconds(ranks)

    def own_seconds(self, steps: int) -> float:
        """Return the seconds of one rank alone: as measured, on a line of logarithms between two measured lengths.

        Beyond the longest one they grow with the steps; below the shortest one they stay.
        """
        lengths = sorted(self.own)
        if steps > lengths[-1]:
            return self.own[lengths[-1]] * steps / lengths[-1]
        seconds = [log(self.own[n]) for n in lengths]
        return float(np.exp(np.interp(log(max(steps, 1)), [log(n) for n in lengths], seconds)))

    def message_seconds(self, ranks: int) -> float:
        """Return the seconds of one message among two ranks or more; 0 where no link was measured."""
        if not self.links:
            return 0.0
        links = sorted(self.links, key=lambda link: link.ranks)
        hops = np.interp(ranks, [link.ranks for link in links], [link.message for link in links])
        largest = links[-1]
        if ranks > largest.ranks:
            hops *= (ranks - 1) / (largest.ranks - 1) if self.ring else log2(ranks) / log2(largest.ranks)
        bandwidth = np.interp(ranks, [link.ranks for link in links], [link.bandwidth for link in links])
        return float(hops + (ranks - 1) * self.size / bandwidth)
