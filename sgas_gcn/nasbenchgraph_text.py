"""Architectures of NAS-Bench-Graph as its users write them, and the keys of its tables.

An architecture is a `link`, the input of each computing node (0: the features, i: node i), and its
`ops`. Of architectures that compute the same the tables hold one, the canonical form: a skip that
only passes something on, or that would make the features a leaf, stands before all other nodes
instead; and of all orders of the nodes the one with the smallest link, then operations, counts.
Source: Qin et al., NeurIPS 2022, section 3.1, and the benchmark's interface. No torch here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import permutations

from sgas.cells.genotype import FORMAT, CellGene, EdgeGene, Genotype
from sgas.errors import GenotypeError, unknown_name
from sgas_gcn.config import NASBENCHGRAPH_SPACE

KIND, SKIP = "normal", "skip"
NAMES = NASBENCHGRAPH_SPACE.operations[1:]
NUM_NODES = 4
BASE = 10
LINKS = (
    (0, 0, 0, 0),
    (0, 0, 0, 1),
    (0, 0, 1, 1),
    (0, 0, 1, 2),
    (0, 0, 1, 3),
    (0, 1, 1, 1),
    (0, 1, 1, 2),
    (0, 1, 2, 2),
    (0, 1, 2, 3),
)
Architecture = tuple[tuple[int, ...], tuple[str, ...]]


def to_nasbenchgraph(genotype: Genotype) -> Architecture:
    """Link and operations of a genotype; GenotypeError where it is none of this space."""
    edges = genotype.validate(NASBENCHGRAPH_SPACE).cells[KIND].edges
    return tuple(edge.source for edge in edges), tuple(edge.op for edge in edges)


def from_nasbenchgraph(link: Sequence[int], ops: Sequence[str]) -> Genotype:
    """The genotype of an architecture; GenotypeError says what is wrong with it."""
    if len(link) != len(ops) or not ops:
        raise GenotypeError(
            f"link is {list(link)} and ops are {list(ops)}: give one input and one operation for "
            "each computing node"
        )
    for node, source in enumerate(link, start=1):
        if not 0 <= source < node:
            raise GenotypeError(
                f"link is {list(link)}: node {node} reads node {source}; it can read 0 to "
                f"{node - 1}"
            )
    for op in ops:
        if op not in NAMES:
            raise unknown_name("operation", op, NAMES, error=GenotypeError)
    edges = tuple(EdgeGene(op, source) for op, source in zip(ops, link, strict=True))
    leaves = NASBENCHGRAPH_SPACE.topology(len(link)).outputs(set(link))
    return Genotype(FORMAT, NASBENCHGRAPH_SPACE.name, {KIND: CellGene(edges, leaves)})


def canonical(link: Sequence[int], ops: Sequence[str]) -> Architecture:
    """The form under which the tables hold an architecture."""
    sources, names, num_skips = list(link), list(ops), 0
    while (node := _passing_skip(sources, names)) is not None:
        sources = [sources[node - 1] if source == node else source for source in sources]
        del sources[node - 1], names[node - 1]
        sources = [source - (source > node) for source in sources]
        num_skips += 1
    sources = [*range(num_skips), *(source + num_skips for source in sources)]
    smallest, columns = min(_forms(sources, [*[SKIP] * num_skips, *names]))
    return smallest, tuple(NAMES[column] for column in columns)


def _passing_skip(link: Sequence[int], ops: Sequence[str]) -> int | None:
    """The first skip that something reads, that alone reads its input, or that has the features."""
    for node, (source, op) in enumerate(zip(link, ops, strict=True), start=1):
        if op == SKIP and (node in link or link.count(source) == 1 or source == 0):
            return node
    return None


def _forms(link: Sequence[int], ops: Sequence[str]) -> Iterator[tuple[tuple[int, ...], ...]]:
    """Link and columns of the operations, in every order of nodes in which inputs come first."""
    for order in permutations(range(1, len(link) + 1)):
        place = {0: 0, **{node: number for number, node in enumerate(order, start=1)}}
        moved = tuple(place[link[node - 1]] for node in order)
        if all(source <= number for number, source in enumerate(moved)):
            yield moved, tuple(NAMES.index(ops[node - 1]) for node in order)


def key_of(link: Sequence[int], ops: Sequence[str]) -> int:
    """The key of an architecture in the tables; GenotypeError where they have none of its size."""
    if len(link) != NUM_NODES:
        raise GenotypeError(
            f"the cell has {len(link)} computing nodes; those of NAS-Bench-Graph have {NUM_NODES}"
        )
    smallest, names = canonical(link, ops)
    key = LINKS.index(smallest)
    for op in names:
        key = BASE * key + NAMES.index(op)
    return key


def architecture_of(key: int) -> Architecture:
    """The architecture of a key; GenotypeError where it is none."""
    number, columns = int(key), []
    for _ in range(NUM_NODES):
        number, column = divmod(number, BASE)
        columns.append(column)
    if not 0 <= number < len(LINKS) or max(columns) >= len(NAMES):
        raise GenotypeError(f"{key} is no key of NAS-Bench-Graph: give one of its tables")
    return LINKS[number], tuple(NAMES[column] for column in reversed(columns))
