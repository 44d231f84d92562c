"""Splits and batch orders: disjoint, stratified, seeded, and free of stored state."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sgas.data import BatchOrder, DeviceSource, SubsetSource, in_order, stratified_parts
from sgas.errors import DataError

CPU = torch.device("cpu")


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(3, 40), min_size=1, max_size=6),
    st.sampled_from([(0.45, 0.45, 0.1), (0.5, 0.25, 0.25), (0.9, 0.1), (1.0, 0.0)]),
    st.integers(0, 5),
)
def test_parts_are_disjoint_complete_and_stratified(
    counts: list[int], fractions: tuple[float, ...], seed: int
) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    parts = stratified_parts(labels, fractions, seed)
    assert sorted(np.concatenate(parts)) == list(range(len(labels)))
    for part, fraction in zip(parts, fractions, strict=True):
        for label, count in enumerate(counts):
            have = int((labels[part] == label).sum())
            assert abs(have - fraction * count) <= len(fractions)
            assert have > 0 or fraction == 0
    again = stratified_parts(labels, fractions, seed)
    assert all((a == b).all() for a, b in zip(parts, again, strict=True))


def test_too_small_a_class_is_named() -> None:
    with pytest.raises(DataError, match=r"class 1 has 2 samples.*at least 3"):
        stratified_parts(np.array([0] * 9 + [1] * 2), (0.4, 0.4, 0.2), 0)


def test_an_epoch_shuffles_all_samples_once() -> None:
    order = BatchOrder(20, seed=3, stream="weights", device=CPU)
    index = order.epoch(0, 5, order.num_batches(5))
    assert index.shape == (4, 5) and sorted(index.flatten().tolist()) == list(range(20))
    assert not torch.equal(index, order.epoch(1, 5, 4))
    assert torch.equal(index, BatchOrder(20, 3, "weights", CPU).epoch(0, 5, 4))
    assert not torch.equal(index, BatchOrder(20, 3, "alphas", CPU).epoch(0, 5, 4))
    assert not torch.equal(index, BatchOrder(20, 4, "weights", CPU).epoch(0, 5, 4))


def test_only_whole_batches_and_a_short_part_begins_again() -> None:
    order = BatchOrder(7, seed=0, stream="alphas", device=CPU)
    assert order.num_batches(3) == 2 and order.num_batches(50) == 1
    assert order.epoch(0, 50, 1).shape == (1, 7)
    index = order.epoch(0, 3, 5)
    assert index.shape == (5, 3)
    for start in (0, 2):
        assert len(set(index[start : start + 2].flatten().tolist())) == 6


def test_evaluation_sees_every_sample_in_order() -> None:
    batches = list(in_order(7, 3, CPU))
    assert [len(batch) for batch in batches] == [3, 3, 1]
    assert torch.cat(batches).tolist() == list(range(7))


def test_sources_augment_only_for_training() -> None:
    source = DeviceSource(
        torch.arange(6.0)[:, None],
        torch.arange(6),
        lambda batch, generator: batch + 1 + 0 * torch.rand(1, generator=generator),
        lambda batch: batch * 10,
    )
    part = SubsetSource(source, torch.tensor([4, 2]))
    generator = torch.Generator().manual_seed(0)
    assert part.batch(torch.tensor([1]), None)[0].item() == 20
    assert part.batch(torch.tensor([1]), generator)[0].item() == 3
    assert part.batch(torch.tensor([0, 1]), None)[1].tolist() == [4, 2]
