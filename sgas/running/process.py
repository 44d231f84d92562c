"""The caller's process: verbs called from a program leave it as it was, and do not depend on it."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Inside, torch is as a fresh process has it; outside, all is as before, after errors too.

    That is: float32 and the CPU as defaults, gradients on, no inference mode and no autocast. The
    generators of Python, NumPy and torch, the number of threads and the current GPU are put back.
    """
    import numpy as np
    import torch

    with contextlib.ExitStack() as stack:
        stack.callback(random.setstate, random.getstate())
        stack.callback(np.random.set_state, np.random.get_state())
        gpus: list[int] = []
        if torch.cuda.is_initialized():
            gpus = [*range(torch.cuda.device_count())]
            stack.callback(torch.cuda.set_device, torch.cuda.current_device())
        stack.enter_context(torch.random.fork_rng(gpus))
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        stack.callback(torch.set_default_dtype, torch.get_default_dtype())
        torch.set_default_dtype(torch.float32)
        device = torch.get_default_device()
        if device.type != "cpu":  # not set where it need not be: it costs at each call of torch
            stack.callback(torch.set_default_device, device)
            torch.set_default_device(None)
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield
