"""What the kernels of a backend compute, and the arguments that belong together.

`torch`, `cpu` (compiled) and `cuda` (Triton) each are a module of these functions. They are raw:
functions with a backward pass written by hand call them inside their own, and torch derives none.
What a function needs again for its backward twin it returns as `kept`. A graph says which nodes
each node reads: `NeighborGraph` the same number for every node, `CsrGraph` any number; a node
without edges gets 0.

Batch norm stands for m norms of C channels side by side, D = m·C columns. Its coefficients are
float64 `[4, D]`: the norm of y is slope · y + shift; then the mean and the inverse deviation
1/√(var + ε). Weights of two inputs `[D, 2C]` are those of both side by side. Dimensions: N nodes or
rows, m edges of a cell, C channels of each, D = m·C.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

from sgas_gcn.csr import CsrGraph
from sgas_gcn.neighbors import NeighborGraph

Graph = NeighborGraph | CsrGraph
Kept = tuple[Tensor, ...]

AFFINE, MASKED, BROADCAST, LENGTH = range(4)  # kinds of terms of a mixture


class Norms(NamedTuple):
    """m batch norms: their parameters and running statistics `[C]`, which move in training."""

    weight: Sequence[Tensor]
    bias: Sequence[Tensor]
    running_mean: Sequence[Tensor]
    running_var: Sequence[Tensor]
    training: bool
    momentum: float
    eps: float


class Normed(NamedTuple):
    """scale · norm(y) of m edges, y `[N, D]` a leaky ReLU of this slope; no scale stands for 1."""

    y: Tensor
    coefficients: Tensor
    scale: Tensor | None
    num_edges: int
    training: bool
    negative_slope: float


class Lengths(NamedTuple):
    """Inverse lengths `[N, m]`, of at least `floor`, and what multiplies the edges' vectors."""

    inverse: Tensor
    scale: Tensor | None
    floor: float


class Term(NamedTuple):
    """A term of a mixture: one piece `[N, C]` for each of its edges, added at the edge's slot.

    A piece is slope · y + shift with y the edge's columns of `values`, or all of them (BROADCAST),
    and the coefficients' first two rows (None: y itself). MASKED has its shift only where `mask`
    `[N]` is 1; LENGTH is divided by its length.
    """

    values: Tensor
    coefficients: Tensor | None = None
    kind: int = AFFINE
    mask: Tensor | None = None
    slots: Sequence[int] = ()


TermLists = tuple[
    list[Tensor], list[Tensor | None], list[int], list[int], list[int]
]  # values, coefficients, kinds, all slots, how many of these each term has


def term_lists(terms: Sequence[Term]) -> tuple[TermLists, Tensor | None]:
    """The terms field by field, as operators take them, and the mask of all that are MASKED."""
    masks = [term.mask for term in terms if term.mask is not None]
    lists = (
        [term.values for term in terms],
        [term.coefficients for term in terms],
        [term.kind for term in terms],
        [slot for term in terms for slot in term.slots],
        [len(term.slots) for term in terms],
    )
    return lists, masks[0] if masks else None


class EdgeMap(NamedTuple):
    """W [x_i, x_j − x_i] on the edges of a graph: `x` `[N, C]`, `weight` `[D, 2C]`."""

    x: Tensor
    weight: Tensor
    graph: Graph


class SageMap(NamedTuple):
    """R(W [x, M]) with M = R(max over the sources j of P x_j), less P x_i where it is relative.

    `x` `[N, C]`, `pre` `[D, C]` is P, `weight` `[D, 2C]`. In a relative one each node has an edge.
    """

    x: Tensor
    pre: Tensor
    weight: Tensor
    graph: Graph
    relative: bool


class Backend(Protocol):
    """The functions of a backend."""

    def neighbor_sum(self, x: Tensor, graph: Graph) -> Tensor:
        """Sum of `x` `[N, D]` over the sources of each node: `[N, D]`."""

    def neighbor_sum_backward(self, grad: Tensor, graph: Graph) -> Tensor:
        """The gradient of what was summed: `[N, D]`."""

    def largest_difference(self, x: Tensor, graph: Graph) -> tuple[Tensor, Kept]:
        """max x_j − x_i over the sources j of each node i `[N, D]`; 0 for a node without any."""

    def largest_difference_backward(self, grad: Tensor, kept: Kept, graph: Graph) -> Tensor:
        """The gradient of what the difference was taken of: `[N, D]`, to the first of equals."""

    def attention_sum(
        self,
        values: Tensor,
        target_score: Tensor,
        source_score: Tensor,
        graph: Graph,
        slope: float,
    ) -> tuple[Tensor, Kept]:
        """Sum of `values` `[N, m, C]` over the sources, weighted by attention: `[N, m, C]`.

        The weights are the softmax over the sources j of leaky ReLU(target_i + source_j) of the
        scores `[N, m]`.
        """

    def attention_sum_backward(
        self,
        grad: Tensor,
        values: Tensor,
        kept: Kept,
        graph: Graph,
        slope: float,
        factors: Tensor | None,
        vectors: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients of the values `[N, m, C]` and of both scores `[N, m]`.

        Scores are products of the values with `vectors` `[2, m·C]` (`head_dots`), by which their
        gradients go on to the values. `values` may come without their `factors` `[m·C]`.
        """

    def edge_conv(self, edge_map: EdgeMap, norms: Norms) -> tuple[Tensor, Tensor, Kept]:
        """The extremum `[N, D]` of R(W [x_i, x_j − x_i]) over the sources j, by the sign of γ.

        Then the coefficients of the norm over all edges.
        """

    def edge_conv_backward(
        self,
        grad: Tensor,
        normed: Normed,
        mask: Tensor | None,
        edge_map: EdgeMap,
        kept: Kept,
        grad_x: Tensor | None,
        of_weight: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Backward of scale · norm(y); adds to `grad_x`. `mask` `[N]` is 0 for nodes without edges.

        Returns the gradients `[2, D]` of γ and β, float64 `[m]` of the scale, and that of the
        weight, empty if not wanted.
        """

    def sage(self, sage_map: SageMap, tracked: bool) -> tuple[Tensor, Tensor, Kept]:
        """The map's result and M, `[N, D]` both; without `tracked` there is no way back."""

    def sage_backward(
        self,
        grad: Tensor,
        y: Tensor,
        lengths: Lengths,
        sage_map: SageMap,
        message: Tensor,
        kept: Kept,
        grad_x: Tensor | None,
        of_weights: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Backward of scale · y / |y|; adds to `grad_x`.

        Returns float64 `[m]`, the gradient of the scale, and those of P and W, empty if not wanted.
        """

    def linear_norm(
        self,
        inputs: Sequence[Tensor],
        weight: Tensor,
        bias: Tensor | None,
        negative_slope: float,
        norms: Norms,
    ) -> tuple[Tensor, Tensor]:
        """Leaky ReLU of Σ W_i x_i + b `[N, D]`, and the coefficients `[4, D]` of its norm.

        `weight` `[D, C · inputs]` are the W_i side by side.
        """

    def linear_norm_backward(
        self,
        grad: Tensor,
        normed: Normed,
        inputs: Sequence[Tensor],
        weight: Tensor,
        grad_inputs: Sequence[Tensor],
        of_weight: bool,
        of_bias: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Backward of `linear_norm`: the gradients of the inputs are added to `grad_inputs`.

        Returns what `relu_norm_backward` does, the gradient of the weight and that of the bias;
        what is not wanted is empty.
        """

    def relu_norm_(self, h: Tensor, negative_slope: float, norms: Norms) -> Tensor:
        """Leaky ReLU in place, and the coefficients `[4, D]` of the norm of its results."""

    def relu_norm_backward(
        self, grad: Tensor, normed: Normed, out: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The gradient before the leaky ReLU goes into `out` if given.

        Returns the gradients `[2, D]` of the norms' weights and biases, and float64 `[m]` of the
        scale.
        """

    def column_sums(self, grad: Tensor, y: Tensor, mask: Tensor | None) -> Tensor:
        """Float64 `[2, D]`: the sums of `grad`, where `mask` `[N]` is 1 alone, and of grad · y.

        `y` is `[N, D]`, or `[N, C]` for each of the m.
        """

    def norm_gradients(
        self,
        sums: Tensor,
        coefficients: Tensor,
        scale: Tensor | None,
        count: int,
        training: bool,
        like: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Backward of scale · norm(y) of `count` rows, from the `column_sums` of its gradient G.

        Returns float64 `[3, D]`, by which y has the gradient f0 · G + f1 + f2 · y; the gradients
        `[2, D]` of the norms' weights and biases in the type of `like`; and float64 `[D]`, the sum
        of G · norm(y), whose sums over each norm's channels are the gradient of the scale `[m]`.
        """

    def head_dots(
        self, values: Tensor, vectors: Tensor, shifts: Tensor, heads: int
    ) -> tuple[Tensor, Tensor]:
        """Σ over each head's channels of `values` `[N, D]` · each of two vectors, plus a shift.

        `vectors` is `[2, D]`, `shifts` `[2, heads]`; two `[N, heads]`.
        """

    def head_dots_backward(self, values: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Float64 `[2, D]`: the gradients of the vectors, from those of both results."""

    def skip_backward(
        self, grad: Tensor, x: Tensor, scale: Tensor | None, grad_x: Tensor | None
    ) -> Tensor:
        """Backward of scale · x for each of m edges: float64 `[m]`, the gradient of the scale.

        `grad` is `[N, D]`; that of x is added to `grad_x` if given.
        """

    def length_backward(
        self,
        grad: Tensor,
        y: Tensor,
        coefficients: Tensor | None,
        lengths: Lengths,
        out: Tensor | None,
    ) -> Tensor:
        """Backward of scale · z / |z|, z = slope · y + shift: float64 `[m]`, that of the scale.

        The gradient of z goes into `out` if given; without coefficients z is y after a ReLU, and
        `out` is the gradient before it.
        """

    def mixture(
        self,
        terms: Sequence[Term],
        scale: Tensor | None,
        bases: Sequence[Tensor | None],
        channels: int,
        floor: float,
    ) -> tuple[list[Tensor], Tensor]:
        """Sums `[N, C]` of the terms' pieces at each of M slots, on top of the slot's base if any.

        Pieces are multiplied by their entries of `scale`, in order. The second are the inverse
        lengths `[N, L]`, at least `floor` long, one for each piece of the LENGTH terms.
        """
