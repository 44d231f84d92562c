"""Genotypes: round trips, and one clear error for everything that is no cell of the space."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgas.cells.genotype import CellGene, EdgeGene, Genotype
from sgas.cells.space import SearchSpace
from sgas.errors import GenotypeError

SPACE = SearchSpace("toy", ("none", "skip", "conv", "max"), ("normal", "reduce"))


@st.composite
def genotypes(draw: st.DrawFn) -> Genotype:
    cells = {}
    for kind in SPACE.cell_kinds:
        steps = draw(st.integers(1, 5))
        edges = [
            EdgeGene(draw(st.sampled_from(SPACE.operations[1:])), draw(st.integers(0, 1 + step)))
            for step in range(steps)
            for _ in range(2)
        ]
        states = st.lists(st.integers(0, 1 + steps), min_size=1, unique=True)
        cells[kind] = CellGene(tuple(edges), tuple(draw(states)))
    return Genotype(1, "toy", cells, {"seed": draw(st.integers())})


@settings(max_examples=60, deadline=None)
@given(genotypes())
def test_both_forms_come_back_the_same(genotype: Genotype) -> None:
    genotype.validate(SPACE)
    assert Genotype.from_json(genotype.to_json()) == genotype
    back = Genotype.from_text(genotype.to_text(), "toy")
    assert back.cells == genotype.cells
    assert back.content_hash == genotype.content_hash


def test_text_as_darts_prints_it() -> None:
    text = """
    DARTS = Genotype(normal=[('conv', 0), ('skip', 1), ['max', 0], ('conv', 2)],
      normal_concat=range(2, 4), reduce=[('skip', 0), ('skip', 1)], reduce_concat=[1, 2])
    """
    genotype = Genotype.from_text(text, "toy").validate(SPACE)
    assert genotype.cells["normal"].concat == (2, 3)
    assert genotype.cells["normal"].edges[2] == EdgeGene("max", 0)
    assert genotype.cells["reduce"].concat == (1, 2)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Genotype()",
        "Genotype(normal=[('conv', 0)])",
        "Genotype(normal=[('conv', 0, 1)], normal_concat=[1])",
        "Genotype(normal=[('conv', '0')], normal_concat=[1])",
        "Genotype(normal=[('conv', True)], normal_concat=[1])",
        "Genotype(normal=__import__('os').listdir('.'), normal_concat=[1])",
        "Genotype(normal=[('conv', 0)], normal_concat=range(10**9))",
        "Genotype(normal=[('conv', 0)], normal_concat=range(0, 10000000))",
        "[1, 2]",
        "Genotype(normal=[('conv', 0)] * 10 ** 9, normal_concat=[1])",
        "(" * 500,
    ],
)
def test_other_text_is_refused_and_never_run(text: str) -> None:
    with pytest.raises(GenotypeError, match="not a genotype"):
        Genotype.from_text(text, "toy")


def plain() -> dict:
    edges = [{"op": "conv", "source": 0}, {"op": "skip", "source": 1}]
    cell = {"edges": edges + edges, "concat": [1, 2, 3]}
    return {"format": 1, "space": "toy", "cells": {"normal": cell, "reduce": cell}}


def broken(change: str) -> dict:
    genotype = json.loads(json.dumps(plain()))
    cell = genotype["cells"]["normal"]
    if change == "cycle":
        cell["edges"][0]["source"] = 2
    elif change == "negative source":
        cell["edges"][0]["source"] = -1
    elif change == "missing edge":
        cell["edges"].pop()
    elif change == "unknown operation":
        cell["edges"][0]["op"] = "cnov"
    elif change == "none":
        cell["edges"][0]["op"] = "none"
    elif change == "unknown key":
        genotype["celss"] = {}
    elif change == "unknown key in an edge":
        cell["edges"][0]["weight"] = 1
    elif change == "concat":
        cell["concat"] = [1, 9]
    elif change == "concat twice":
        cell["concat"] = [1, 1]
    elif change == "concat empty":
        cell["concat"] = []
    elif change == "missing cell":
        del genotype["cells"]["reduce"]
    elif change == "space":
        genotype["space"] = "graph"
    elif change == "format":
        genotype["format"] = 2
    elif change == "type":
        cell["edges"][0]["source"] = "0"
    return genotype


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("cycle", "reads state 2, which would make a cycle; allowed are 0 to 1"),
        ("negative source", "reads state -1"),
        ("missing edge", "lists 3 edges.*an edge is missing"),
        ("unknown operation", "unknown operation 'cnov': did you mean conv.*choose from"),
        ("none", "unknown operation 'none'"),
        ("unknown key", "unknown field `celss`"),
        ("unknown key in an edge", "unknown field `weight`"),
        ("concat", "concat is .1, 9.; it takes distinct states from 0 to 3"),
        ("concat twice", "concat is"),
        ("concat empty", "concat is"),
        ("missing cell", "has cells .'normal'.; space 'toy' has .'normal', 'reduce'."),
        ("space", "is of space 'graph'; this task searches 'toy'"),
        ("format", "format is 2; this version reads format 1"),
        ("type", "Expected `int`, got `str`"),
    ],
)
def test_errors_say_what_was_given_and_what_is_allowed(change: str, told: str) -> None:
    with pytest.raises(GenotypeError, match=told):
        Genotype.from_json(json.dumps(broken(change))).validate(SPACE)


def test_notes_do_not_change_the_hash() -> None:
    first = Genotype.from_json(json.dumps(plain()))
    second = Genotype.from_json(json.dumps(plain() | {"meta": {"seed": 1}}))
    assert first.content_hash == second.content_hash
    assert first.content_hash != Genotype.from_json(json.dumps(broken("concat"))).content_hash
