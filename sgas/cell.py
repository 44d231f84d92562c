"""The forward pass of a cell's directed acyclic graph, by source state.

Each state pushes its contributions to all later steps at once, so that a family can evaluate
together everything that reads one state. What a state is made of, this module does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

Push = Callable[[int, Tensor], Mapping[int, Tensor]]
Extend = Callable[[int, Tensor, Mapping[int, Tensor]], Mapping[int, Tensor]]


def dag_forward(inputs: Sequence[Tensor], num_steps: int, push: Push) -> list[Tensor]:
    """All states of a cell: its inputs, then for each step the sum of what was pushed to it.

    `push(source, state)` returns `{step: contribution}` for the edges that leave the state; it is
    called once for every state but the last, in order. Each step has to receive something.
    """

    def extend(source: int, state: Tensor, sums: Mapping[int, Tensor]) -> Mapping[int, Tensor]:
        return {
            step: sums[step] + contribution if step in sums else contribution
            for step, contribution in push(source, state).items()
        }

    return dag_extend(inputs, num_steps, extend)


def dag_extend(inputs: Sequence[Tensor], num_steps: int, extend: Extend) -> list[Tensor]:
    """All states of a cell, as `dag_forward`, where a contribution is added as it is computed.

    `extend(source, state, sums)` returns `{step: sum}`: what the steps that the state reaches have
    received so far, of `sums`, and now from it.
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
