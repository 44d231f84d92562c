// The operator of `neighbor_max.h`.

#include "neighbor_max.h"


#include "neighbors.h"
#include "ranges.h"

namespace sgas {
namespace {

std::tuple<Tensor, Tensor> neighbor_max(const Tensor& given, SGAS_GRAPH_ARGUMENTS, bool relative) {
  check_graph(given.size(0), SGAS_GRAPH);
  const Tensor x = with_dense_rows(given);
  Tensor best = empty(x.sizes(), x.options());
  Tensor places = empty(x.sizes(), x.options().dtype(place_type(degree)));
  SGAS_FLOATING_TYPES(x.scalar_type(), "neighbor_max", [&] {
    const Rows rows(offsets, sources, out_offsets, out_targets, out_edges);
    const int64_t channels = x.size(1);
    with_places(places, [&](auto* chosen) {
      using Place = std::remove_pointer_t<decltype(chosen)>;
      max_rows<true>(Matrix<scalar_t>(x), channels, rows, AfterMax{relative, false},
                     writing<scalar_t>(best), View<Place>{chosen, channels});
    });
  });
  return {best, places};
}

Tensor neighbor_max_backward(const Tensor& given, const Tensor& places, SGAS_GRAPH_ARGUMENTS,
                             bool relative) {
  check_graph(given.size(0), SGAS_GRAPH);
  SGAS_CHECK(places.sizes() == given.sizes() && places.is_contiguous(),
              "the places have to be those of neighbor_max");
  const Tensor grad = with_dense_rows(given);
  Tensor grad_x = empty(grad.sizes(), grad.options());
  SGAS_FLOATING_TYPES(grad.scalar_type(), "neighbor_max_backward", [&] {
    const Rows rows(offsets, sources, out_offsets, out_targets, out_edges);
    with_places(places, [&](auto* chosen) {
      using Place = std::remove_pointer_t<decltype(chosen)>;
      const Matrix<scalar_t> from(grad);
      const View<const Place> kept{chosen, grad.size(1)};
      const auto to = writing<scalar_t>(grad_x);
      over_closed_ranges(
          rows,
          [&](int64_t first, int64_t last) {
            hand_on_largest(first, last, from, grad.size(1), kept, rows, relative, to);
          },
          [&] { collect_largest(from, grad.size(1), kept, rows, relative, to); });
    });
  });
  return grad_x;
}

}  // namespace

SGAS_OPERATORS(sgas_gcn, m) {
  m.add<&neighbor_max>("neighbor_max(Tensor x, " SGAS_GRAPH_SCHEMA
        ", bool relative) -> (Tensor best, Tensor places)");
  m.add<&neighbor_max_backward>("neighbor_max_backward(Tensor grad, Tensor places, " SGAS_GRAPH_SCHEMA
        ", bool relative) -> Tensor");
}

}  // namespace sgas
