"""The genotype that a name stands for: published, a file, a run folder, or its text itself."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from sgas.cells.genotype import Genotype
from sgas.cells.space import SearchSpace
from sgas.errors import GenotypeError, unknown_name
from sgas.family import Family
from sgas.files import decode
from sgas.protocols import cell_protocol, worst
from sgas.running.runs import check_family, read_config, read_genotype


def load_genotype(family: Family, name: str) -> Genotype:
    """The genotype of a published name, a run folder, a file, or a text: JSON, DARTS, a space's."""
    path = Path(name)
    if is_text(name) and not name.startswith("{"):
        return _parse_text(family, name)
    if is_text(name):
        genotype = Genotype.from_json(name)
    elif path.is_dir():
        check_family(family, path, read_config(path))
        genotype = read_genotype(path)
    elif path.is_file():
        genotype = _read_file(family, path)
    elif name in family.published_names():
        return family.load_published(name)
    elif os.sep in name or path.suffix in (".json", ".txt"):
        raise GenotypeError(f"genotype file {name} does not exist")
    else:
        raise unknown_name("genotype", name, family.published_names(), error=GenotypeError)
    if genotype.space not in family.spaces:
        raise unknown_name("search space", genotype.space, family.spaces, error=GenotypeError)
    return genotype.validate(family.search_space(genotype.space))


def load_genotypes(family: Family, given: Any) -> str:
    """What stands for several cells, as the JSON text that `genotypes_in` reads.

    `given` is such a text, or names that `load_genotype` takes, in one text with commas between;
    or one or several of names, genotypes and what searches returned. A cell counts once, by the
    worst protocol that it is given by; the order of its edges into a step does not count.
    """
    if isinstance(given, str) and given.startswith("["):
        try:
            given = decode(given, list[Genotype])
        except ValueError as error:
            raise GenotypeError(f"not a list of genotypes: {error}") from None
    if isinstance(given, str):
        given = [name.strip() for name in given.split(",") if name.strip()]
    if isinstance(given, Genotype | Path) or hasattr(given, "folder"):
        given = [given]
    if not isinstance(given, Iterable):
        raise GenotypeError(
            f"candidates are of type {type(given).__name__}; give runs, files, published names, "
            "genotypes or what searches returned"
        )
    each: dict[str, Genotype] = {}
    for one in given:
        whole = isinstance(one, Genotype)
        text = msgspec.json.encode(one).decode() if whole else str(getattr(one, "folder", one))
        genotype = load_genotype(family, text)
        cell = _in_edge_order(genotype, family.search_space(genotype.space)).content_hash
        before = each.get(cell, genotype)
        protocols = cell_protocol(before.meta), cell_protocol(genotype.meta)
        each[cell] = genotype if worst(*protocols) != protocols[0] else before
    return msgspec.json.encode(list(each.values())).decode()


def _in_edge_order(genotype: Genotype, space: SearchSpace) -> Genotype:
    """The same cells, their edges into a step by the states that they read."""
    cells = {
        kind: msgspec.structs.replace(
            gene,
            edges=tuple(
                edge
                for edges in gene.edges_by_step(space)
                for edge in sorted(edges, key=lambda edge: (edge.source, edge.op))
            ),
        )
        for kind, gene in genotype.cells.items()
    }
    return msgspec.structs.replace(genotype, cells=cells)


def genotypes_in(text: str, space: SearchSpace) -> list[Genotype]:
    """The cells of a text that `load_genotypes` made; GenotypeError if they are not of `space`."""
    try:
        found = decode(text, list[Genotype])
    except ValueError as error:
        raise GenotypeError(f"not a list of genotypes: {error}") from None
    return [genotype.validate(space) for genotype in found]


def _read_file(family: Family, path: Path) -> Genotype:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise GenotypeError(f"{path} cannot be read as text ({error})") from None
    try:
        is_json = text.lstrip().startswith("{")
        return Genotype.from_json(text) if is_json else _parse_text(family, text)
    except GenotypeError as error:
        raise GenotypeError(f"{path}: {error}") from None


def _parse_text(family: Family, text: str) -> Genotype:
    """The genotype of a text of DARTS, of the first space that it fits, or of a space's own."""
    faults = []
    for known in family.spaces.values():
        if known.from_text is not None and text.strip().startswith("|"):
            return known.from_text(text)
    for space in map(family.search_space, family.spaces):
        try:
            return Genotype.from_text(text, space.name).validate(space)
        except GenotypeError as error:
            faults.append(str(error))
    raise GenotypeError(faults[0])


def genotype_label(name: str, genotype: Genotype) -> str:
    """A short name for files and run folders: that of what was published, the file or the run."""
    path = None if is_text(name) else Path(name)
    label = path and (path.name if path.is_dir() else path.stem)
    return label or genotype.content_hash[:8]


def is_text(name: str) -> bool:
    """Whether what stands for a genotype is its text itself, pasted."""
    return "(" in name or name.startswith(("{", "|"))


def as_argument(genotype: Genotype) -> str:
    """What `load_genotype` makes the same genotype of; with its notes, where it has some."""
    return msgspec.json.encode(genotype).decode() if genotype.meta else genotype.to_text()
