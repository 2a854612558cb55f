"""Boxes of ranks in memory that processes share, in place of that of GPUs; kernels that g++ has built use them."""

import mmap
import os
import sys
from contextlib import contextmanager
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
from cuda_host import simulated

from recsolve.distributed import exchange


class _Runtime:
    """What CUDA does for memory that is shown to other processes, with files."""

    def __init__(self, folder):
        self.folder, self.maps = folder, {}

    def _mapped(self, path):
        with open(path, "r+b") as file:
            memory = mmap.mmap(file.fileno(), 0)
        at = np.frombuffer(memory, np.uint8).ctypes.data
        self.maps[at] = memory, path
        return at

    def malloc(self, nbytes):
        path = os.path.join(self.folder, f"box-{os.getpid()}-{len(self.maps)}")
        with open(path, "wb") as file:
            file.truncate(nbytes)
        return self._mapped(path)

    def memset(self, at, value, nbytes):
        np.frombuffer(self.maps[at][0], np.uint8, nbytes)[:] = value

    def ipcGetMemHandle(self, at):
        return os.path.basename(self.maps[at][1]).encode().ljust(64, b"\0")

    def ipcOpenMemHandle(self, handle):
        return self._mapped(os.path.join(self.folder, handle.rstrip(b"\0").decode()))

    def deviceSynchronize(self):
        pass

    def getDevice(self):
        return 0


@contextmanager
def of_host(folder, fails=None):
    """Let groups of gloo exchange messages by boxes; ``fails`` names what a rank cannot do."""
    import torch

    runtime, empty = _Runtime(folder), torch.empty
    if fails is not None:
        setattr(runtime, fails, _fail)

    event = SimpleNamespace(record=lambda: None, done=False)
    pinned = SimpleNamespace(zeros_pinned=np.zeros, empty_pinned=np.empty)
    with simulated.gpu() as put:
        cupy = sys.modules["cupy"]
        cupy.cuda.runtime, cupy.cuda.Event = runtime, lambda **_: event
        with (
            patch.dict(sys.modules, {"cupyx": pinned}),
            patch.object(exchange.Exchange, "_may_have_boxes", True),
            patch.object(torch, "empty", lambda *args, device=None, **how: empty(*args, **how)),
        ):
            yield put


def _fail(*_):
    raise MemoryError("no room for a box")
