"""The image family, whose process kills itself when it draws batch number STOP_AFTER."""

from __future__ import annotations

import dataclasses
import os
import signal
from typing import Any

from sgas_cnn import family


def open_task(run: Any, model: Any, data: Any) -> Any:
    """The family's task; its augmentation counts batches."""
    task = family.FAMILY.open_task(run, model, data)
    augment, drawn = task._augmentation.augment, [0]

    def counted(images: Any, generator: Any) -> Any:
        drawn[0] += 1
        if drawn[0] == int(os.environ["STOP_AFTER"]):
            os.kill(os.getpid(), signal.SIGKILL)
        return augment(images, generator)

    object.__setattr__(task._augmentation, "augment", counted)
    return task


FAMILY = dataclasses.replace(family.FAMILY, open_task=open_task)
