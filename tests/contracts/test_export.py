"""Networks of every space as files that need torch alone, tried in fresh processes."""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import io
import pickle
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from small_models import SPACES as SMALL
from small_models import SmallSpace

import sgas_gcn
from sgas.cells.genotype import Genotype
from sgas.cli import main
from sgas.errors import InputError
from sgas.exporting.export import FORMATS
from sgas.exporting.python_file import About, python_file
from sgas.running.export import export_network
from sgas_gcn.family import FAMILY as GRAPHS
from sgas_gcn.graph_batch import GraphBatch

ROOT = Path(__file__).parents[2]
SPACES = {name: small for name, small in SMALL.items() if small.family.spaces[name].form}
OF_TENSORS = [name for name in SPACES if name != "graph"]


def moved(small: SmallSpace, number: int = 0) -> torch.nn.Module:
    """A network in float32 whose running statistics are not those of a fresh one."""
    network = small.network(small.genotype(number), auxiliary=small.name != "nasbench201")
    network(small.batch())
    return network.float().eval()


def written(small: SmallSpace, network: torch.nn.Module, path: Path, format: str, number: int = 0):  # type: ignore[no-untyped-def]
    about = About("net", "made up", small.genotype(number), True, tuple("abcde"))
    example = small.models().example_input()
    return export_network(small.family, small.name, network, None, example, about, path, format)


def imported(path: Path) -> ModuleType:
    """An exported file as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # where dataclasses look for the names of types
    spec.loader.exec_module(module)
    del sys.modules[path.stem]
    return module


CASES = [(name, number) for name, small in SPACES.items() for number in range(len(small.genotypes))]


@pytest.mark.parametrize("name", SPACES)
def test_the_definition_is_what_the_network_computes(name: str) -> None:
    """For switches of its config and other sizes, with buffers that a fresh network has not."""
    small = SPACES[name]
    switches = dataclasses.fields(small.family.spaces[name].model_config)
    switched = [{each.name: True} for each in switches if each.default is False]
    for options in ({}, *switched, *small.others):
        torch.manual_seed(0)
        network = small.models(**options).build_network(small.genotype(0), False).double().eval()
        for buffer in network.buffers():
            if buffer.is_floating_point():
                buffer.uniform_(0.5, 1.5)
        batch = small.batch()
        inputs = (batch,)
        if name == "graph":
            edges = batch.neighbors.edges.edge_index
            inputs = batch.x, edges, torch.rand(edges.shape[1], dtype=batch.x.dtype)
            batch = GraphBatch.of_graph(*inputs[:2], weights=inputs[2])
        with torch.no_grad():
            assert torch.allclose(network.plain(*inputs), network(batch), atol=1e-9), options


@pytest.mark.parametrize(("name", "number"), CASES)
def test_a_python_file_agrees_and_reads_well(tmp_path: Path, name: str, number: int) -> None:
    small = SPACES[name]
    exported = written(small, moved(small, number), tmp_path / "net.py", "python", number)
    assert exported.to_plain == 0 and exported.to_kernels < 1e-4
    assert [file.name for file in exported.files] == ["net.py", "net.safetensors"]
    text = (tmp_path / "net.py").read_text()
    imports = re.findall(r"^ *(?:from|import) (\w+)", text, re.MULTILINE)
    own = set(imports) - {"torch", "safetensors", *sys.stdlib_module_names}
    assert own == {"net"} and "n1 = self.edge0(" in text and "Fused" not in text
    genotype = text.partition("Genotype: ")[2].partition("\n\n")[0]
    assert genotype.replace("\n", " ") == small.genotype(number).to_text()
    for check in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *check, "--config", str(ROOT / "pyproject.toml")]
        done = subprocess.run(
            [*command, "--no-cache", str(tmp_path / "net.py")], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["point", "image"])
def test_the_layers_of_a_python_file_can_be_quantised(tmp_path: Path, name: str) -> None:
    small = SPACES[name]
    written(small, moved(small), tmp_path / "net.py", "python")
    network = imported(tmp_path / "net.py").load()
    narrow = torch.ao.quantization.quantize_dynamic(network, {torch.nn.Linear}, torch.qint8)
    inputs = small.batch().float()
    with torch.no_grad():
        wanted, logits = network(inputs), narrow(inputs)
    assert 0 < (logits - wanted).abs().max() < 0.2 * wanted.abs().max()


@pytest.mark.parametrize("name", OF_TENSORS)
def test_a_program_of_torch_agrees_for_other_batches_and_sizes(tmp_path: Path, name: str) -> None:
    small = SPACES[name]
    network = moved(small)
    assert written(small, network, tmp_path / "net.pt2", "torch").to_plain < 1e-5
    program = torch.export.load(tmp_path / "net.pt2").module()
    inputs = small.batch(3).float()
    inputs = inputs[:, :11] if name == "point" else inputs
    assert torch.allclose(program(inputs), network.plain(inputs), atol=1e-5)


def onnx_logits(path: Path, inputs: torch.Tensor) -> torch.Tensor:
    session = pytest.importorskip("onnxruntime").InferenceSession(path)
    (name,) = (each.name for each in session.get_inputs())
    return torch.from_numpy(session.run(["logits"], {name: inputs.numpy()})[0])


@pytest.mark.parametrize(
    "name", ["point", "image", pytest.param("nasbench201", marks=pytest.mark.slow)]
)
def test_a_model_of_onnx_agrees_for_other_batches_and_sizes(tmp_path: Path, name: str) -> None:
    onnx = pytest.importorskip("onnx")
    small = SPACES[name]
    network = moved(small)
    exported = written(small, network, tmp_path / "net.onnx", "onnx")
    assert exported.to_plain < 1e-5 and [file.name for file in exported.files] == ["net.onnx"]
    inputs = small.batch(3).float()
    inputs = inputs[:, :11] if name == "point" else inputs
    assert torch.allclose(onnx_logits(tmp_path / "net.onnx", inputs), network(inputs), atol=1e-5)
    model = onnx.load(tmp_path / "net.onnx")
    sizes = model.graph.input[0].type.tensor_type.shape.dim
    axes = [size.dim_param or size.dim_value for size in sizes]
    assert axes == (["batch", "points", 3] if name == "point" else ["batch", 3, 8, 8])
    facts = {each.key: each.value for each in model.metadata_props}
    assert facts["genotype"] == small.genotype(0).to_text()
    assert facts["classes"] == '["a", "b", "c", "d", "e"]'


@pytest.mark.parametrize("name", SPACES)
def test_a_network_is_copied_pickled_traced_and_put_in_16_bits_before_its_first_call(
    name: str,
) -> None:
    small = SPACES[name]
    batch = small.batch()
    batch = batch.float() if name in OF_TENSORS else batch.with_features(batch.x.float())
    wanted = moved(small)(batch)
    content = io.BytesIO()
    torch.save(moved(small), content)
    content.seek(0)
    for network in (
        copy.deepcopy(moved(small)),
        pickle.loads(pickle.dumps(moved(small))),
        torch.load(content, weights_only=False),
    ):
        assert torch.equal(network(batch), wanted)
    if name in OF_TENSORS:
        traced = torch.jit.trace(moved(small), (batch,))
        assert torch.equal(traced(batch), moved(small).plain(batch))
    for dtype in (torch.float16, torch.bfloat16):
        narrow = batch.to(dtype) if name in OF_TENSORS else batch.with_features(batch.x.to(dtype))
        logits = moved(small).to(dtype)(narrow)
        assert logits.dtype == dtype and torch.isfinite(logits).all()


@pytest.mark.parametrize(("format", "file"), [("torch", "net.pt2"), ("onnx", "net.onnx")])
def test_graphs_are_no_program_and_nothing_is_left(tmp_path: Path, format: str, file: str) -> None:
    small = SPACES["graph"]
    with pytest.raises(InputError, match="give --format python"):
        written(small, moved(small), tmp_path / file, format)
    assert list(tmp_path.iterdir()) == []


def test_a_space_that_has_no_form_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    small = SMALL["nasbenchgraph"]
    network = small.network(small.genotype(0))
    with pytest.raises(InputError, match="networks of space nasbenchgraph cannot be exported"):
        written(small, network, tmp_path / "net.py", "python")
    assert list(tmp_path.iterdir()) == []


PLUGIN = """
import numpy
import torch
from torch import nn
from sgas.registry import operation
from sgas_gcn.ops.operation import Operation


def mean(x):
    return 2 * x


@operation("twice", spaces=["point"])
class Twice(Operation):
    def __init__(self, channels):
        super().__init__(channels)
        self.lin = nn.Linear(channels, channels)

    def forward(self, x, neighbors):
        return BODY
"""


@pytest.mark.parametrize(
    ("body", "format", "told"),
    [
        ("self.lin(x) * 2", "python", None),
        ("self.lin(x) * 2", "torch", None),
        ("self.lin(x) * numpy.float32(2)", "python", "operation 'twice' cannot be.*uses numpy"),
        ("mean(self.lin(x))", "python", "two definitions in the file would be called mean"),
        (
            "self.lin(x) * (2 if x.sum() > 0 else 3)",
            "torch",
            "operation 'twice' cannot be exported by torch",
        ),
        (
            "self.lin(x) * torch.special.bessel_j0(x)",
            "onnx",
            "operation 'twice' cannot be exported by ONNX: .*bessel_j0",
        ),
    ],
)
def test_an_operation_of_ones_own_is_exported_or_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    body: str,
    format: str,
    told: str | None,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(PLUGIN.replace("BODY", body))
    Path("cell.json").write_text(
        '{"format": 1, "space": "point", "cells": {"normal": {"edges": [{"op": "twice", "source": '
        '0}, {"op": "semi_gcn", "source": 1}], "concat": [0, 1, 2]}}}'
    )
    argv = ["export", "cell.json", "--plugin", "mine.py", "--format", format, "--out", "net"]
    sizes = ["--num_points", "24", "--k", "4", "--channels", "4", "--num_cells", "2"]
    status = main(GRAPHS, [*argv, *sizes, "--emb_dims", "8"])
    out, err = capsys.readouterr()
    if told is None:
        assert status == 0, err
        assert "largest difference 0.0 to plain torch" in out
        return
    assert status == 2 and re.search(told, err) and err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cell.json", "mine.py"]


def test_a_run_is_exported_with_its_classes_and_preparation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    draw = torch.Generator().manual_seed(0)
    clouds = torch.randn(24, 32, 3, generator=draw), torch.arange(24) % 3
    sizes = {"num_points": 24, "k": 3, "channels": 4, "num_cells": 2, "emb_dims": 8}
    trained = sgas_gcn.train(
        "random-modelnet-3", clouds, preset="demo", epochs=1, batch_size=8, quiet=True, **sizes
    )
    print(trained.export("my_net"))
    my_net = imported(tmp_path / "my_net.py")
    assert my_net.CLASSES == ("0", "1", "2") == trained.classes
    with torch.no_grad():
        probs = my_net.load()(my_net.prepare(clouds[0])).softmax(1)
    assert torch.allclose(probs, torch.from_numpy(trained.predict_proba(clouds[0])), atol=1e-5)
    with pytest.raises(InputError, match=r"my_net\.py exists already"):
        trained.export("my_net")


def published(space: str, step: int) -> list[Genotype]:
    """Every `step`-th of the published cells of a space."""
    family = SPACES[space].family
    cells = (family.load_published(name) for name in family.published_names())
    return [cell for cell in cells if cell.space == space][::step]


@pytest.mark.parametrize("step", [12, pytest.param(1, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("name", ["point", "graph", "image"])
def test_a_published_cell_is_written_as_it_is(tmp_path: Path, name: str, step: int) -> None:
    small = SPACES[name]
    make_form = small.family.spaces[name].form
    inputs = None
    for number, genotype in enumerate(published(name, step)):
        network = small.network(genotype)
        network(small.batch())
        network.float().eval()
        form = make_form(network, None, small.models().example_input())
        path = tmp_path / f"net{number}.py"
        path.write_text(python_file(form, About("net", "made up", genotype, True, None)))
        written = imported(path).build()
        written.load_state_dict(form.weights(network))
        inputs = inputs or form.inputs(4)
        with torch.no_grad():
            assert torch.equal(written.eval()(*inputs), network.plain(*inputs)), genotype


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["point", "image"])
def test_every_published_cell_is_a_model_of_onnx(tmp_path: Path, name: str) -> None:
    pytest.importorskip("onnxscript")
    small = SPACES[name]
    for genotype in published(name, 1):
        network = small.network(genotype)
        network(small.batch())
        form = small.family.spaces[name].form(network.float().eval(), None, small.batch())
        FORMATS["onnx"][1](
            network, form, About("net", "", genotype, True, None), [tmp_path / "a.onnx"]
        )
        inputs = small.batch(2).float()
        logits = onnx_logits(tmp_path / "a.onnx", inputs)
        assert torch.allclose(logits, network.plain(inputs), atol=1e-5), genotype
