"""Genotype: the architecture that a search found, or that a paper published.

A cell lists, for each step in order, the edges that it keeps as (operation, source state), and the
states that are concatenated into its output. Two forms in and out: JSON (ours) and the text of
DARTS, `Genotype(normal=[('sep_conv_3x3', 0), …], normal_concat=range(2, 6), …)`, which is parsed
and never evaluated.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec

from sgas.cells.space import SearchSpace
from sgas.errors import GenotypeError, unknown_name
from sgas.files import decode

FORMAT = 1
MOST_EDGES, LONGEST_TEXT = 1000, 100_000  # of a cell; in characters: more is no genotype


class EdgeGene(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One kept edge: the operation and the state that it reads."""

    op: str
    source: int


class CellGene(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One cell: kept edges step by step, and the states of its output."""

    edges: tuple[EdgeGene, ...]
    concat: tuple[int, ...]

    def num_steps(self, space: SearchSpace) -> int:
        """The number of steps of this cell in `space`; GenotypeError where edges are missing."""
        if len(self.edges) > MOST_EDGES:
            raise GenotypeError(
                f"a cell lists {len(self.edges)} edges; at most {MOST_EDGES} can be"
            )
        steps = space.num_steps_of(len(self.edges))
        if steps is None:
            raise GenotypeError(
                f"a cell lists {len(self.edges)} edges; a cell of space {space.name!r} keeps "
                f"{'every edge' if space.in_degree is None else f'{space.in_degree} edges'} "
                "into each step: an edge is missing or one too many"
            )
        return steps

    def edges_by_step(self, space: SearchSpace) -> list[tuple[EdgeGene, ...]]:
        """The edges that enter each step, in order."""
        topology, rest, by_step = space.topology(self.num_steps(space)), self.edges, []
        for step in range(topology.num_steps):
            count = topology.kept_into(step)
            by_step.append(rest[:count])
            rest = rest[count:]
        return by_step


class Genotype(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An architecture: its search space, a cell for each kind, and notes that change nothing."""

    format: int
    space: str
    cells: dict[str, CellGene]
    meta: dict[str, Any] = {}

    def to_json(self) -> str:
        """The JSON form, indented, with a newline at its end."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2).decode() + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Genotype:
        """The genotype in a JSON text; GenotypeError names an unknown key or a wrong type."""
        try:
            genotype = decode(text, cls)
        except ValueError as error:
            raise GenotypeError(f"not a genotype: {error}") from None
        if genotype.format != FORMAT:
            raise GenotypeError(
                f"genotype format is {genotype.format}; this version reads format {FORMAT}"
            )
        return genotype

    def to_text(self) -> str:
        """The DARTS form, as one line of Python source."""
        parts = []
        for kind, cell in self.cells.items():
            edges = ", ".join(f"({edge.op!r}, {edge.source})" for edge in cell.edges)
            parts += [f"{kind}=[{edges}]", f"{kind}_concat={_concat_text(cell.concat)}"]
        return f"Genotype({', '.join(parts)})"

    @classmethod
    def from_text(cls, text: str, space: str) -> Genotype:
        """The genotype in a DARTS text, for example pasted from a log. The text is never run."""
        call = _parse_call(text)
        values = {word.arg: word.value for word in call.keywords if word.arg is not None}
        kinds = [name for name in values if not name.endswith("_concat")]
        unpaired = [name for name in values if name.removesuffix("_concat") not in kinds]
        if call.args or not kinds or unpaired or len(values) != 2 * len(kinds):
            raise GenotypeError(
                "not a genotype: expected normal=…, normal_concat=… (and reduce=…, "
                f"reduce_concat=… for image cells), got {sorted(values) or 'no keyword'}"
            )
        cells = {
            kind: CellGene(_edges(values[kind]), _concat(values[f"{kind}_concat"]))
            for kind in kinds
        }
        return cls(FORMAT, space, cells)

    @property
    def content_hash(self) -> str:
        """SHA-256 over space and cells; notes do not count."""
        content = msgspec.json.encode([self.space, self.cells], order="sorted")
        return hashlib.sha256(content).hexdigest()

    def validate(self, space: SearchSpace) -> Genotype:
        """This genotype, if it is a set of cells of `space`; GenotypeError says what is wrong."""
        if self.space != space.name:
            raise GenotypeError(
                f"the genotype is of space {self.space!r}; this task searches {space.name!r}"
            )
        if set(self.cells) != set(space.cell_kinds):
            raise GenotypeError(
                f"the genotype has cells {sorted(self.cells)}; space {space.name!r} has "
                f"{sorted(space.cell_kinds)}"
            )
        for kind, cell in self.cells.items():
            _validate_cell(kind, cell, space)
        return self


def _validate_cell(kind: str, cell: CellGene, space: SearchSpace) -> None:
    topology = space.topology(cell.num_steps(space))
    for step, edges in enumerate(cell.edges_by_step(space)):
        for edge in edges:
            if edge.op not in space.genotype_operations:
                raise unknown_name(
                    "operation", edge.op, space.genotype_operations, error=GenotypeError
                )
            if not 0 <= edge.source < topology.state_of(step):
                raise GenotypeError(
                    f"{kind} cell: an edge into state {topology.state_of(step)} reads state "
                    f"{edge.source}, which would make a cycle; allowed are 0 to "
                    f"{topology.state_of(step) - 1}"
                )
    wrong = [state for state in cell.concat if not 0 <= state < topology.num_states]
    if wrong or not cell.concat or len(set(cell.concat)) != len(cell.concat):
        raise GenotypeError(
            f"{kind} cell: concat is {list(cell.concat)}; it takes distinct states from 0 to "
            f"{topology.num_states - 1}"
        )
    leaves = topology.outputs({edge.source for edge in cell.edges})
    if topology.num_outputs is None and cell.concat != leaves:
        raise GenotypeError(
            f"{kind} cell: concat is {list(cell.concat)}; a cell of space {space.name!r} outputs "
            f"the states that no edge leaves: give {list(leaves)}"
        )


def _concat_text(concat: tuple[int, ...]) -> str:
    first, last = concat[0], concat[-1]
    if concat == tuple(range(first, last + 1)):
        return f"range({first}, {last + 1})"
    return str(list(concat))


def _parse_call(text: str) -> ast.Call:
    """The one call `Genotype(…)` in a text, with or without `NAME = ` before it."""
    if len(text) > LONGEST_TEXT:
        raise GenotypeError(
            f"not a genotype: the text has {len(text)} characters, more than {LONGEST_TEXT}"
        )
    try:
        body = ast.parse(text.strip()).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise GenotypeError("not a genotype: the text is no Python expression") from None
    value = getattr(body[0], "value", None) if len(body) == 1 else None
    value = _PlainNumbers().visit(value) if isinstance(value, ast.AST) else value
    if not isinstance(value, ast.Call):
        raise GenotypeError("not a genotype: expected one Genotype(normal=[…], …)")
    return value


class _PlainNumbers(ast.NodeTransformer):
    """Takes `np.int64(3)`, as NumPy 2 prints a number, for `3`."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        of = node.func.value if isinstance(node.func, ast.Attribute) else None
        is_number = isinstance(of, ast.Name) and of.id in ("np", "numpy") and not node.keywords
        return node.args[0] if is_number and len(node.args) == 1 else node


def _literal(node: ast.expr, wanted: str) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        raise GenotypeError(f"not a genotype: expected {wanted}, got {ast.unparse(node)}") from None


def _edges(node: ast.expr) -> tuple[EdgeGene, ...]:
    wanted = "a list of ('operation', source) pairs"
    value = _literal(node, wanted)
    if not isinstance(value, list | tuple):
        raise GenotypeError(f"not a genotype: expected {wanted}, got {value!r}")
    edges = []
    for pair in value:
        if not (isinstance(pair, list | tuple) and [type(part) for part in pair] == [str, int]):
            raise GenotypeError(f"not a genotype: expected {wanted}, got {pair!r}")
        edges.append(EdgeGene(*pair))
    return tuple(edges)


def _concat(node: ast.expr) -> tuple[int, ...]:
    wanted = "a list of states or range(first, last + 1)"
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range":
        bounds: Iterable[Any] = [_literal(argument, "whole numbers") for argument in node.args]
        value = list(bounds)
        if not 1 <= len(value) <= 2 or any(type(part) is not int for part in value):
            raise GenotypeError(f"not a genotype: expected {wanted}, got {ast.unparse(node)}")
        if max(map(abs, value)) > 1000:
            raise GenotypeError(f"not a genotype: {ast.unparse(node)} names too many states")
        return tuple(range(*value))
    value = _literal(node, wanted)
    if not isinstance(value, list | tuple) or any(type(part) is not int for part in value):
        raise GenotypeError(f"not a genotype: expected {wanted}, got {value!r}")
    return tuple(value)
