"""What a family says of its networks, so that they can be written as a file of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sgas.cells.edges import PLACE

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sgas.cells.edges import CellLayout


@dataclass(frozen=True)
class CellForm:
    """The cells of one kind: how their class begins, and what their edges hold.

    `inputs` are the names of the cell's inputs, `parameters` and `lines` those of its `__init__`
    before the edges, `classes` what these name; `prepared` are lines of `forward` before the
    states, and `more` is a further argument of it, as (name, type). `returns` are the type and the
    text of what it gives, of the states' names, and `output` says what that is.
    """

    name: str
    doc: str
    inputs: tuple[str, ...]
    parameters: str
    lines: Sequence[str]
    classes: Sequence[type]
    prepared: Sequence[str]
    layout: CellLayout
    edges: Sequence[Any]
    output: str
    returns: tuple[str, str] = ("Tensor", "torch.cat([{}], dim=1)")
    more: tuple[str, str] | None = None


@dataclass(frozen=True)
class NetworkForm:
    """A network: the module whose `definition` is written, and what that is made of.

    `inputs` draws those of so many samples, on which `run` runs the network as it is here.
    `dynamic` are the names and least sizes of those dimensions of each that may be any, for
    torch.export; none where it cannot be exported so. `root` stands at `prefix` in the network's
    names of weights. `made` is the call that makes a cell; `settings` are values that stand for
    `self.config.NAME`. `prepare` are the lines of a function that prepares raw samples, of
    `constants` and `needs`, as (module, name). `libraries` are the packages that the file imports.
    """

    title: str
    inputs: Callable[[int], tuple[Tensor, ...]]
    root: nn.Module
    cells: Sequence[CellForm]
    made: Callable[[Any], str]
    settings: Any
    usage: str
    dynamic: Sequence[Mapping[int, tuple[str, int]]]
    prefix: str = ""
    replaced: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    prepare: Sequence[str] = ()
    constants: Sequence[str] = ()
    run: Callable[..., Tensor] = lambda network, inputs: network(inputs)
    needs: Sequence[tuple[str, str]] = ()
    definition: str = "plain"
    libraries: tuple[str, ...] = ("torch",)

    def weights(self, network: nn.Module) -> dict[str, Tensor]:
        """The tensors of a network by their names in the file, without the auxiliary head's."""
        named = {n.removeprefix(self.prefix): t for n, t in network.state_dict().items()}
        return {
            PLACE.sub(r"cells.\g<cell>.edge\g<edge>.", name): tensor.contiguous()
            for name, tensor in named.items()
            if not name.startswith("auxiliary.")
        }
