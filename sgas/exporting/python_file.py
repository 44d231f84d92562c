"""A network as one readable Python file that imports torch alone, with its weights beside it."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from sgas import __version__
from sgas.cells.genotype import Genotype
from sgas.errors import InputError
from sgas.exporting.forms import CellForm, NetworkForm
from sgas.exporting.source import WIDTH, Sources, Writer
from sgas.labels import Labels, ManyLabels, Numbers

COMMON = """
def build() -> Network:
    \"\"\"A fresh network, with weights drawn by chance.\"\"\"
    return Network()


def load(weights: str | Path | None = None) -> Network:
    \"\"\"The network with the weights of a file (that beside this one), to evaluate.\"\"\"
    from safetensors.torch import load_file

    network = build()
    network.load_state_dict(load_file(weights or Path(__file__).with_suffix(".safetensors")))
    return network.eval()
"""


NUMBERS = """
def numbers(logits: Tensor) -> Tensor:
    \"\"\"The numbers `[R, L]` that are predicted, in the units of the data.\"\"\"
    mean = torch.tensor(TARGET_MEAN, device=logits.device)
    return logits * torch.tensor(TARGET_STD, device=logits.device) + mean
"""


@dataclass(frozen=True)
class About:
    """What a file says of its network: its name, where it comes from, and what it answers.

    `classes` are the names of classes, labels or numbers, and `labels` how logits become these.
    """

    name: str
    origin: str
    genotype: Genotype
    trained: bool
    classes: tuple[str, ...] | None
    labels: Labels | None = None

    @property
    def answer(self) -> str:
        """A line that makes an answer of the logits, or nothing where it is not known."""
        if isinstance(self.labels, Numbers):
            return "\n    values = numbers(logits)  # of CLASSES"
        if self.labels is None:
            return ""
        probs = "sigmoid()" if isinstance(self.labels, ManyLabels) else "softmax(1)"
        return f"\n    probs = logits.{probs}  # of CLASSES"


def python_file(form: NetworkForm, about: About) -> str:
    """The text of the file; InputError where something in it cannot stand alone."""
    sources = Sources(form.replaced, form.renamed, form.libraries)
    writer = Writer(sources)
    cells = [_cell(each, writer) for each in form.cells]
    network = _network(form, writer)
    for module, name in form.needs:
        sources.need(module, name)
    texts = list(sources.texts())
    sources.need_import("pathlib", "Path", "Path")
    sources.need_import("torch", "Tensor", "Tensor")
    sources.need_import("torch", "nn", "nn")
    constants = [text for text in texts if not text.startswith(("def ", "class ", "@"))]
    definitions = [text for text in texts if text not in constants]
    constants += form.constants
    if about.classes is not None:
        constants.insert(0, _classes(about.classes))
    functions = ["\n".join(form.prepare)] if form.prepare else []
    if isinstance(about.labels, Numbers):
        sources.need_import("", "torch", "torch")
        functions.append(NUMBERS.strip())
        constants += [f"TARGET_MEAN = {about.labels.mean}", f"TARGET_STD = {about.labels.std}"]
    body = [*definitions, *cells, network, *functions, COMMON.strip()]
    head = [_docstring(form, about), "from __future__ import annotations", _imports(sources)]
    return "\n\n".join([*head, "\n".join(constants)] if constants else head) + (
        "\n\n\n" + "\n\n\n".join(body) + "\n"
    )


def _docstring(form: NetworkForm, about: About) -> str:
    facts = [
        f"{form.title}: {about.name}.",
        f"Made by: {about.origin}.",
        f"Genotype: {about.genotype.to_text()}",
        "Source: Li et al., SGAS: Sequential Greedy Architecture Search, CVPR 2020.",
        f"Written by sgas {__version__}. SPDX-License-Identifier: MIT. "
        "Copyright (c) 2026 the SGAS contributors.",
    ]
    wrapped = ["\n".join(textwrap.wrap(fact, WIDTH, break_long_words=False)) for fact in facts]
    wrapped[0] = "\n".join(textwrap.wrap(facts[0], WIDTH - 3))
    made = "load()" if about.trained else "build()"
    known = ["CLASSES"] if about.classes is not None else []
    known += [made[:-2], *(["numbers"] if isinstance(about.labels, Numbers) else [])]
    names = ", ".join([*known, *(["prepare"] if form.prepare else [])])
    call = f"    network = {made}\n    {form.usage}{about.answer}"
    usage = f"    from {about.name} import {names}\n\n{call}"
    weights = "load() reads its weights with safetensors" if about.trained else "it has no weights"
    needs = f"It needs {' and '.join(form.libraries)} alone; {weights}:"
    return '"""' + "\n\n".join([wrapped[0], needs, usage, *wrapped[1:]]) + '\n"""'


def _imports(sources: Sources) -> str:
    """All imports, Python's own first, as ruff sorts them."""
    groups = []
    for others in (False, True):
        roots = {each: (each[0] or each[1]).split(".")[0] for each in sources.imports}
        here = [each for each, root in roots.items() if (root in sources.libraries) == others]
        plain = {f"import {name}" + (f" as {local}" if local != name else "")
                 for source, name, local in here if not source}  # fmt: skip
        modules: dict[str, set[str]] = {}
        for source, name, local in here:
            if source:
                shown = name if local == name else f"{name} as {local}"
                modules.setdefault(source, set()).add(shown)
        lines = [f"from {s} import {', '.join(sorted(n, key=_case))}" for s, n in modules.items()]
        if plain or lines:
            groups.append("\n".join([*sorted(plain), *sorted(lines)]))
    return "\n\n".join(groups)


def _case(name: str) -> tuple[int, str]:
    """Constants, classes, then the rest."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


def _classes(classes: Sequence[str]) -> str:
    return f"CLASSES = {_wrapped('(', [_quoted(name) for name in classes], ')', 10)}"


def _quoted(text: str) -> str:
    """A string as ruff writes it."""
    plain = repr(text)
    return f'"{plain[1:-1]}"' if plain[0] == "'" and '"' not in plain else plain


def _wrapped(opening: str, parts: Sequence[str], closing: str, indent: int) -> str:
    """Parts in brackets in one line, or one a line."""
    ends = "," if len(parts) == 1 and opening == "(" else ""
    line = f"{opening}{', '.join(parts)}{ends}{closing}"
    if indent + len(line) <= WIDTH:
        return line
    inner = "".join(f"    {part},\n" for part in parts)
    return f"{opening}\n{inner}{closing}"


def _cell(form: CellForm, writer: Writer) -> str:
    """The class of a kind of cell, an edge a line."""
    for cls in form.classes:
        writer.sources.need_class(cls)
    first = len(form.inputs)
    names = [*form.inputs, *(f"n{step + 1}" for step in range(form.layout.num_steps))]
    edges, into = [], dict[int, list[str]]()
    argument = f", {form.more[0]}" if form.more else ""
    for number, (edge, held) in enumerate(zip(form.layout.edges, form.edges, strict=True)):
        (operation,) = held.values()
        try:
            made = writer.call(operation, {"channels": "channels"})
        except InputError as error:
            raise InputError(f"operation {edge.ops[0]!r} cannot be exported: {error}") from None
        state = names[edge.source]
        line, ends = (
            f"        self.edge{number} = {made}  # ",
            f"{state} to {names[first + edge.step]}",
        )
        named = f"{line}{edge.ops[0]}: {ends}"
        edges.append(named if len(named) <= WIDTH else line + ends)
        into.setdefault(edge.step, []).append(f"self.edge{number}({state}{argument})")
    typed = [f"{name}: Tensor" for name in form.inputs]
    typed += [": ".join(form.more)] if form.more else []
    lines = [
        f"class {form.name}(nn.Module):",
        f'    """{form.doc}"""',
        "",
        f"    def __init__(self, {form.parameters}) -> None:",
        "        super().__init__()",
        *(f"        {line}" for line in form.lines),
        *edges,
        "",
        f"    def forward(self, {', '.join(typed)}) -> {form.returns[0]}:",
        f'        """The output {form.output}."""',
        *(f"        {line}" for line in form.prepared),
    ]
    for step, parts in into.items():
        lines += _summed(names[first + step], parts)
    kept = ", ".join(names[state] for state in form.layout.concat)
    return "\n".join([*lines, f"        return {form.returns[1].format(kept)}"])


def _summed(name: str, parts: Sequence[str]) -> Iterator[str]:
    """The sum of the edges into a step, in one line where there is room."""
    line = f"        {name} = {' + '.join(parts)}"
    if len(line) <= WIDTH:
        yield line
        return
    yield f"        {name} = {parts[0]}"
    yield from (f"        {name} = {name} + {part}" for part in parts[1:])


def _network(form: NetworkForm, writer: Writer) -> str:
    """The class of the network: its layers, and its definition."""
    lines = []
    for name, child in form.root.named_children():
        if name == "auxiliary":
            continue
        if isinstance(child, nn.ModuleList):
            is_cells = name == "cells"
            calls = [form.made(each) if is_cells else writer.call(each) for each in child]
            made = _listed(calls)
        else:
            made = writer.call(child)
        lines.append(f"self.{name} = {made}")
    methods = writer.sources.methods(type(form.root), form.definition)
    text = "\n\n".join(methods).replace(f"def {form.definition}(", "def plain(")
    for name, value in _simple_values(form, text).items():
        lines.append(f"self.{name} = {value!r}")
    text = re.sub(
        r"self\.config\.(\w+)", lambda found: repr(getattr(form.settings, found[1])), text
    )
    layers = "\n".join(f"        {line}" for line in "\n".join(lines).splitlines())
    return (
        f'class Network(nn.Module):\n    """{form.title}."""\n\n'
        "    def __init__(self) -> None:\n        super().__init__()\n"
        f"{layers}\n\n{writer.sources.changed(text).rstrip()}"
    )


def _simple_values(form: NetworkForm, text: str) -> dict[str, Any]:
    """Numbers, and None, that a definition reads from the network itself."""
    names = dict.fromkeys(re.findall(r"self\.(\w+)", text))
    values = {name: v for name, v in vars(form.root).items() if name in names}
    numbers = {n: v for n, v in values.items() if v is None or isinstance(v, int | float | str)}
    return {name: v for name, v in numbers.items() if name != "training"}


def _listed(calls: Sequence[str]) -> str:
    """A module list, a call a line."""
    inner = "".join(f"        {call},\n" for call in calls)
    return f"nn.ModuleList(\n    [\n{inner}    ]\n)"
