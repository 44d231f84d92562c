"""Tries exported files in a process of its own that cannot import a package of ours."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from sgas.errors import SgasError

CHILD = """
import importlib.util, sys
import torch

class Closed:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0].startswith("sgas"):
            raise ModuleNotFoundError(f"{name} is none of the file's", name=name)

sys.meta_path.insert(0, Closed())
file, weights, inputs, outputs, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
if file.endswith(".py"):
    spec = importlib.util.spec_from_file_location("exported", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules["exported"] = module
    spec.loader.exec_module(module)
    network = module.load(weights)
elif file.endswith(".onnx"):
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(threads)
    session = onnxruntime.InferenceSession(file, options, ["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    def network(*inputs):
        arrays = (each.numpy() for each in inputs)
        return torch.from_numpy(session.run(None, dict(zip(names, arrays)))[0])
else:
    network = torch.export.load(file).module()
with torch.no_grad():
    logits = [network(*each) for each in torch.load(inputs, weights_only=True)]
torch.save(logits, outputs)
"""


def outputs_elsewhere(
    file: Path, weights: Path | None, inputs: Sequence[tuple[Tensor, ...]]
) -> list[Tensor]:
    """The logits of an exported file for each of the inputs, from a fresh process.

    SgasError with what went wrong there.
    """
    with tempfile.TemporaryDirectory() as folder:
        there, back = Path(folder) / "inputs.pt", Path(folder) / "outputs.pt"
        torch.save(list(inputs), there)
        words = [file, weights or "", there, back, torch.get_num_threads()]
        command = [sys.executable, "-I", "-c", CHILD, *map(str, words)]
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, errors="replace", check=False
        )
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise SgasError(f"the exported file does not run by itself: {reason}")
        logits: list[Tensor] = torch.load(back, weights_only=True)
        return logits
