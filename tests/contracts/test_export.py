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
from typing import Any

import msgspec
import pytest
import torch
from sampling import some
from small_models import SPACES as SMALL
from small_models import SmallSpace

import sgas_gcn
from sgas.cells.genotype import CellGene, EdgeGene, Genotype
from sgas.cli import main
from sgas.errors import InputError
from sgas.exporting.export import FORMATS
from sgas.exporting.python_file import About, python_file
from sgas.running.export import export_network
from sgas_gcn.config import GraphModelConfig
from sgas_gcn.datasets.graph_file import degree_features
from sgas_gcn.export import graph_form
from sgas_gcn.family import FAMILY as GRAPHS
from sgas_gcn.graph_batch import GraphBatch
from sgas_gcn.preparation import GraphPreparation

ROOT = Path(__file__).parents[2]
SPACES = {name: small for name, small in SMALL.items() if small.family.spaces[name].form}
OF_TENSORS = [name for name in SPACES if SPACES[name].dimensions.get("num_classes")]


def fresh(small: SmallSpace, **options: object) -> torch.nn.Module:
    """A network that was never called, whose buffers are not those of a fresh one."""
    torch.manual_seed(0)
    network = small.models(**options).build_network(small.genotype(0), False).eval()
    for buffer in network.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    return network


def narrowed(batch: Any, dtype: torch.dtype = torch.float32) -> Any:
    return batch.to(dtype) if torch.is_tensor(batch) else batch.with_features(batch.x.to(dtype))


def tensors_of(batch: Any) -> tuple[torch.Tensor, ...]:
    """What the definition of a network takes."""
    if torch.is_tensor(batch):
        return (batch,)
    edges = batch.neighbors.edges
    weights = () if edges.weights is None else (edges.weights,)
    return batch.x, torch.stack(edges.ends), *weights


def weighted(batch: Any) -> Any:
    """The same graphs, whose edges have weights."""
    edges = batch.neighbors.edges.edge_index
    weights = torch.rand(edges.shape[1], dtype=batch.x.dtype)
    return GraphBatch.of_graph(batch.x, edges, weights=weights)


def others(small: SmallSpace) -> tuple[torch.Tensor, ...]:
    """Inputs of other sizes than an export has seen."""
    inputs = tensors_of(narrowed(small.batch(3)))
    return (inputs[0][:, :11],) if small.name == "point" else inputs


def moved(small: SmallSpace, number: int = 0) -> torch.nn.Module:
    """A network in float32 whose running statistics are not those of a fresh one."""
    network = small.network(small.genotype(number), auxiliary=not small.name.startswith("nas"))
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
        network, given = fresh(small, **options).double(), small.batch()
        for batch in (given,) if name in OF_TENSORS else (given, weighted(given)):
            with torch.no_grad():
                logits = network.plain(*tensors_of(batch))
                for inputs in ((batch,), tensors_of(batch)):
                    assert torch.allclose(network(*inputs), logits, atol=1e-9), options


@pytest.mark.parametrize(("name", "number"), some(CASES, *((name, 0) for name in SPACES)))
def test_a_python_file_agrees_and_reads_well(tmp_path: Path, name: str, number: int) -> None:
    small = SPACES[name]
    exported = written(small, moved(small, number), tmp_path / "net.py", "python", number)
    assert exported.to_plain == 0 and exported.to_kernels < 1e-4
    assert [file.name for file in exported.files] == ["net.py", "net.safetensors"]
    text = (tmp_path / "net.py").read_text()
    imports = re.findall(r"^ *(?:from|import) (\w+)", text, re.MULTILINE)
    own = set(imports) - {"torch", "safetensors", *sys.stdlib_module_names}
    assert own == {"net", *(["torch_geometric"] if name == "nasbenchgraph" else [])}
    assert "n1 = self.edge0(" in text and "Fused" not in text
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


@pytest.mark.parametrize("name", some(SPACES, "point"))
def test_a_program_of_torch_agrees_for_other_batches_and_sizes(tmp_path: Path, name: str) -> None:
    small = SPACES[name]
    network = moved(small)
    assert written(small, network, tmp_path / "net.pt2", "torch").to_plain < 1e-5
    program = torch.export.load(tmp_path / "net.pt2").module()
    inputs = others(small)
    assert torch.allclose(program(*inputs), network.plain(*inputs), atol=1e-5)


def onnx_logits(path: Path, *inputs: torch.Tensor) -> torch.Tensor:
    session = pytest.importorskip("onnxruntime").InferenceSession(path)
    names = [each.name for each in session.get_inputs()]
    arrays = [each.numpy() for each in inputs]
    return torch.from_numpy(session.run(["logits"], dict(zip(names, arrays, strict=True)))[0])


@pytest.mark.parametrize("name", some(SPACES, "image"))
def test_a_model_of_onnx_agrees_for_other_batches_and_sizes(tmp_path: Path, name: str) -> None:
    onnx = pytest.importorskip("onnx")
    small = SPACES[name]
    network = moved(small)
    exported = written(small, network, tmp_path / "net.onnx", "onnx")
    assert exported.to_plain < 1e-5 and [file.name for file in exported.files] == ["net.onnx"]
    inputs = others(small)
    logits = onnx_logits(tmp_path / "net.onnx", *inputs)
    assert torch.allclose(logits, network.plain(*inputs), atol=1e-5)
    model = onnx.load(tmp_path / "net.onnx")
    axes = {
        each.name: [size.dim_param or size.dim_value for size in each.type.tensor_type.shape.dim]
        for each in model.graph.input
    }
    graph, image = {"x": ["nodes", 6], "edge_index": [2, "edges"]}, {"images": ["batch", 3, 8, 8]}
    shapes = {"point": {"points": ["batch", "points", 3]}, "graph": graph, "nasbenchgraph": graph}
    assert axes == shapes.get(name, image)
    facts = {each.key: each.value for each in model.metadata_props}
    assert facts["genotype"] == small.genotype(0).to_text()
    assert facts["classes"] == '["a", "b", "c", "d", "e"]'


@pytest.mark.parametrize("name", SPACES)
def test_a_network_is_copied_pickled_traced_and_put_in_16_bits_before_its_first_call(
    name: str,
) -> None:
    small = SPACES[name]
    batch = narrowed(small.batch())
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
    inputs = tensors_of(batch)
    traced = torch.jit.trace(moved(small), inputs)
    assert torch.equal(traced(*inputs), moved(small).plain(*inputs))
    for dtype in (torch.float16, torch.bfloat16):
        logits = moved(small).to(dtype)(narrowed(batch, dtype))
        assert logits.dtype == dtype and torch.isfinite(logits).all()


@pytest.mark.parametrize("backend", some(["aot_eager", "inductor"], "aot_eager"))
@pytest.mark.parametrize("name", some(SPACES, "point"))
def test_a_network_is_compiled_before_its_first_call(name: str, backend: str) -> None:
    small = SPACES[name]
    network, batch = fresh(small), narrowed(small.batch())
    torch._dynamo.reset()
    logits = torch.compile(network, backend=backend, fullgraph=name in OF_TENSORS)(batch)
    assert torch.allclose(logits, network.plain(*tensors_of(batch)), atol=1e-5)


def test_a_network_that_labels_graphs_is_a_file_and_no_program(tmp_path: Path) -> None:
    small, sizes = SPACES["graph"], {"in_channels": 6, "num_outputs": 5, "per_graph": 1}
    models = GRAPHS.spaces["graph"].models(GraphModelConfig(channels=4, num_cells=2), sizes)
    network, batch = models.build_network(small.genotype(0), False), narrowed(small.batch())
    network(batch)
    about = About("net", "made up", small.genotype(0), True, tuple("abcde"))
    given = GRAPHS, "graph", network, None, models.example_input(), about
    for format in ("torch", "onnx"):
        with pytest.raises(InputError, match="A network for graphs is no program for any"):
            export_network(*given, tmp_path / "net", format)
        assert list(tmp_path.iterdir()) == []
    export_network(*given, tmp_path / "net", "python")
    inputs, graphs = tensors_of(batch), batch.graph_of_node
    file = imported(tmp_path / "net.py").load()
    with torch.no_grad():
        for logits in (file(*inputs, graphs), network(*inputs, graph_of_node=graphs)):
            assert torch.allclose(logits, network(batch), atol=1e-5)
        (alone,) = map(narrowed, small.samples(1))
        assert torch.allclose(network(*tensors_of(alone)), network(alone), atol=1e-5)


@pytest.mark.parametrize("format", some(FORMATS, "python"))
@pytest.mark.parametrize("per_graph", [0, 1], ids=["nodes", "graphs"])
def test_a_network_that_reads_attributes_of_edges_is_exported(
    tmp_path: Path, per_graph: int, format: str
) -> None:
    small = SPACES["graph"]
    sizes = {**small.dimensions, "edge_channels": 3} | ({"per_graph": 1} if per_graph else {})
    models = GRAPHS.spaces["graph"].models(GraphModelConfig(channels=4, num_cells=2), sizes)
    gene = EdgeGene("gat", 0), EdgeGene("gin", 1), EdgeGene("gin", 1), EdgeGene("gat", 2)
    genotype = msgspec.structs.replace(small.genotype(0), cells={"normal": CellGene(gene, (2, 3))})
    network = models.build_network(genotype, False).eval()
    about = About("net", "made up", genotype, True, tuple("abcde"))
    given = GRAPHS, "graph", network, None, models.example_input(), about, tmp_path / "net"
    if per_graph and format != "python":
        with pytest.raises(InputError, match="is no program"):
            export_network(*given, format)
        return
    exported = export_network(*given, format)
    assert exported.to_plain <= FORMATS[format][2] * exported.largest
    assert exported.to_kernels < 1e-4
    with pytest.raises(ValueError, match="give edge_attr"):
        network(torch.randn(4, 6), torch.zeros(2, 3, dtype=torch.int64))


@pytest.mark.parametrize("format", some(FORMATS, "python"))
def test_a_network_that_labels_points_is_exported(tmp_path: Path, format: str) -> None:
    small = SPACES["point"]
    config = GRAPHS.spaces["point"].model_config(**small.sizes)
    sizes = {**small.dimensions, "per_point": 1}
    models = GRAPHS.spaces["point"].models(config, sizes)
    network = models.build_network(small.genotype(0), False)
    network(narrowed(small.batch()))
    about = About("net", "made up", small.genotype(0), True, tuple("abcde"))
    given = GRAPHS, "point", network, None, models.example_input(), about
    exported = export_network(*given, tmp_path / "net", format)
    assert exported.to_plain <= FORMATS[format][2] * exported.largest


def test_a_file_makes_the_features_of_graphs_without_any(tmp_path: Path) -> None:
    network = SPACES["graph"].models().build_network(SPACES["graph"].genotype(0), False)
    prepared = GraphPreparation(6, False, False, degrees=True)
    form = graph_form(network, prepared, None)
    path = tmp_path / "net.py"
    path.write_text(python_file(form, About("net", "", SPACES["graph"].genotype(0), False, None)))
    edges = torch.randint(9, (2, 40))
    wanted = degree_features(edges.T.numpy(), 12)
    assert imported(path).prepare(edges, 12).tolist() == wanted.tolist()


def test_numbers_are_exported_in_their_units(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    draw = torch.Generator().manual_seed(0)
    clouds = torch.randn(24, 32, 3, generator=draw)
    values = 100 + 7 * torch.randn(24, 2, generator=draw)
    trained = sgas_gcn.train(
        "random-modelnet-3", (clouds, values), quiet=True, target="numbers", **TRAINED
    )
    wanted = torch.from_numpy(trained.predict(clouds))
    trained.export("my_net")
    my_net = imported(tmp_path / "my_net.py")
    with torch.no_grad():
        logits = my_net.load()(my_net.prepare(clouds))
    assert torch.allclose(my_net.numbers(logits), wanted, rtol=1e-5)
    trained.export("my_net", "torch")
    program = torch.export.load(tmp_path / "my_net.pt2").module()
    assert torch.allclose(program(my_net.prepare(clouds)), wanted, rtol=1e-5)
    assert "values = numbers(logits)" in (tmp_path / "my_net.py").read_text()


def test_a_space_that_has_no_form_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    small = SMALL["toy"]
    with pytest.raises(InputError, match="networks of space toy cannot be exported: load"):
        written(small, small.network(), tmp_path / "net.py", "python")
    assert list(tmp_path.iterdir()) == []


TRAINED: dict[str, Any] = {
    "preset": "demo",
    "epochs": 1,
    "batch_size": 8,
    **{"num_points": 24, "k": 3, "channels": 4, "num_cells": 2, "emb_dims": 8},
}
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
        pytest.param("self.lin(x) * 2", "torch", None, marks=pytest.mark.exhaustive),
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
    *notes, error = err.splitlines()
    assert status == 2 and re.search(told, error)
    assert all(note.startswith("note  ") for note in notes)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cell.json", "mine.py"]


def test_a_run_is_exported_with_its_classes_and_preparation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    draw = torch.Generator().manual_seed(0)
    clouds = torch.randn(24, 32, 3, generator=draw), torch.arange(24) % 3
    trained = sgas_gcn.train("random-modelnet-3", clouds, quiet=True, **TRAINED)
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
@pytest.mark.parametrize("name", ["point", "graph", "image"])
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
        inputs = others(small)
        logits = onnx_logits(tmp_path / "a.onnx", *inputs)
        assert torch.allclose(logits, network.plain(*inputs), atol=1e-5), genotype
