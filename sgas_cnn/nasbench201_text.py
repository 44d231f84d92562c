"""Genotypes of NAS-Bench-201 as its users write them: `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`.

Nodes are separated by `+`; each lists the operation on the edge from every earlier node. Source:
Dong and Yang, ICLR 2020, and the benchmark's interface. No torch here.
"""

from __future__ import annotations

from sgas.cells.genotype import FORMAT, CellGene, EdgeGene, Genotype
from sgas.errors import GenotypeError, unknown_name
from sgas_cnn.config import NASBENCH201_SPACE

KIND = "normal"
EXAMPLE = "|op~0|+|op~0|op~1|+|op~0|op~1|op~2|"


def to_nasbench201(genotype: Genotype) -> str:
    """The text of a genotype; GenotypeError where it is none of this space.

    The benchmark knows cells whose steps read every earlier state once and whose output is the
    last state.
    """
    cell = genotype.validate(NASBENCH201_SPACE).cells[KIND]
    steps = [
        {edge.source: edge.op for edge in edges} for edges in cell.edges_by_step(NASBENCH201_SPACE)
    ]
    complete = all(set(ops) == set(range(step + 1)) for step, ops in enumerate(steps))
    if not complete or cell.concat != (len(steps),):
        raise GenotypeError(
            "the cell is none of NAS-Bench-201: each step reads every earlier state once, and "
            f"concat is the last state, here [{len(steps)}]"
        )
    return "+".join(
        "|" + "".join(f"{ops[source]}~{source}|" for source in sorted(ops)) for ops in steps
    )


def from_nasbench201(text: str) -> Genotype:
    """The genotype of a text; GenotypeError names what is wrong with it."""
    edges: list[EdgeGene] = []
    nodes = text.strip().split("+")
    for step, node in enumerate(nodes):
        parts = node.strip().split("|")
        if len(parts) != step + 3 or parts[0] or parts[-1]:
            raise GenotypeError(
                f"not a NAS-Bench-201 cell: node {step + 1} is {node.strip()!r}, expected "
                f"{step + 1} edges as in {EXAMPLE}"
            )
        edges += [_edge(part, source) for source, part in enumerate(parts[1:-1])]
    cell = CellGene(tuple(edges), (len(nodes),))
    return Genotype(FORMAT, NASBENCH201_SPACE.name, {KIND: cell}).validate(NASBENCH201_SPACE)


def _edge(text: str, source: int) -> EdgeGene:
    """The edge `op~source`."""
    op, _, number = text.partition("~")
    if number != str(source):
        raise GenotypeError(
            f"not a NAS-Bench-201 cell: edge {text!r} stands where one from node {source} is "
            f"expected, as in {EXAMPLE}"
        )
    if op not in NASBENCH201_SPACE.operations:
        raise unknown_name("operation", op, NASBENCH201_SPACE.operations, error=GenotypeError)
    return EdgeGene(op, source)
