"""The image supernet: every edge holds all candidates until it is decided.

Source: Li et al., "SGAS: Sequential Greedy Architecture Search", CVPR 2020, section 4.1.
Dimensions: B images, H × W pixels, C channels, E edges of a cell, O candidate operations.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sgas.cells.alphas import draw_alphas, weights_of
from sgas.cells.decisions import CellDecisions
from sgas.cells.edges import kept_operations, searched_layout
from sgas.cells.space import SearchSpace
from sgas_cnn.cells import build_cells, build_stem, check_size, classify, forward_cells
from sgas_cnn.config import IMAGE_SPACE, ImageModelConfig
from sgas_cnn.edges import OperationTable
from sgas_cnn.ops.image import IMAGE_OPERATIONS


class ImageSupernet(nn.Module):
    """Logits `[B, num_classes]` for images `[B, in_channels, H, W]`; each of `alphas` is `[E, O]`.

    All cells of a kind share its alphas, and each has weights of its own for every edge and
    operation.
    """

    def __init__(
        self,
        config: ImageModelConfig,
        in_channels: int,
        num_classes: int,
        space: SearchSpace = IMAGE_SPACE,
        operations: OperationTable = IMAGE_OPERATIONS,
    ) -> None:
        super().__init__()
        self.config, self.space = config, space
        topology = space.topology(config.num_steps)
        layout, kinds = searched_layout(space, topology), space.cell_kinds
        self.stem = build_stem(config, in_channels)
        layouts = dict.fromkeys(kinds, layout)
        self.cells = build_cells(config, self.stem, layouts, False, space, operations)
        self.classifier = nn.Linear(self.cells[-1].out_channels, num_classes)
        self.alphas = draw_alphas(space, topology)
        self._decisions = dict.fromkeys(kinds, CellDecisions.none_yet(topology))
        self._running = self._decisions
        self._weights: list[nn.Parameter] | None = None

    @property
    def decisions(self) -> dict[str, CellDecisions]:
        """What is decided, by kind of cell."""
        return dict(self._decisions)

    def weights(self) -> list[nn.Parameter]:
        """All parameters but the alphas; after a decision, those that are left."""
        if self._weights is None:  # to walk through all modules costs as much as a forward pass
            self._weights = weights_of(self)
        return list(self._weights)

    def apply_decisions(self, decisions: Mapping[str, CellDecisions]) -> None:
        """Free the operations that `decisions` gives up; those that stay keep their parameters.

        Takes any later state of the decisions, also one that is in force already, and is how a
        fresh supernet gets the shape of a checkpoint. What is gone cannot come back.
        """
        self._running = self._decisions = {kind: decisions[kind] for kind in self._decisions}
        for cell in self.cells:
            cell.edges.restrict(kept_operations(self.space, self._decisions[cell.kind]))
        self._weights = None

    def select(self, cells: Mapping[str, CellDecisions] | None) -> None:
        """Run what complete `cells` keep and nothing else; None: all that is held."""
        self._running = self._decisions if cells is None else dict(cells)
        for cell in self.cells:
            cell.edges.select(kept_operations(self.space, self._running[cell.kind]))

    def forward(self, images: Tensor) -> Tensor:
        """Logits `[B, num_classes]` for images `[B, in_channels, H, W]`.

        ConfigError where the images are too small for the reductions.
        """
        check_size(images, self.config)
        weights = {
            kind: None if self._running[kind].complete else torch.softmax(alphas, dim=-1)
            for kind, alphas in self.alphas.items()
        }
        outputs = forward_cells(
            self.cells, self.stem, images, lambda cell, s0, s1: cell(s0, s1, weights[cell.kind])
        )
        return classify(self.classifier, outputs[-1])
