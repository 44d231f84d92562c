"""The forward pass of a cell's directed acyclic graph, by source state.

Each state pushes its contributions to all later steps at once, so that a family can evaluate
together everything that reads one state. What a state is made of, this module does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

Extend = Callable[[int, Tensor, Mapping[int, Tensor]], Mapping[int, Tensor]]


def dag_extend(inputs: Sequence[Tensor], num_steps: int, extend: Extend) -> list[Tensor]:
    """All states of a cell: its inputs, then for each step the sum of what was pushed to it.

    `extend(source, state, sums)` returns `{step: sum}` for the steps that the state reaches: what
    they have received so far, of `sums`, and now from it. It is called once for every state but the
    last, in order. Each step has to receive something.
    """
    states = list(inputs)
    sums: dict[int, Tensor] = {}
    num_states = len(inputs) + num_steps
    for source in range(num_states - 1):
        for step, total in extend(source, states[source], sums).items():
            assert len(inputs) + step > source, f"state {source} cannot reach back to step {step}"
            sums[step] = total
        next_state = source + 1
        if next_state >= len(inputs):
            step = next_state - len(inputs)
            assert step in sums, f"no edge enters step {step}"
            states.append(sums.pop(step))
    return states
