// Maximum over the neighbours of each node, less its own value where `relative`, and the place among
// its edges of the one that had it.
//
// The edge is kept and not the source: a source may be a node's neighbour twice, and only one of
// the two takes the gradient. Where threads share a graph each source collects its gradient over the
// edges that leave it, so that no two of them write to one place; else each node hands its gradient
// on. The order of a sum is the same.

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <atomic>

#include "lanes.h"
#include "neighbors.h"
#include "ranges.h"

namespace sgas {
namespace {

// Takes the value where it is larger; a NaN wins and stays, so that it is seen.
template <bool with_nan, class Value>
auto wins_over(Value value, Value largest) {
  if constexpr (with_nan) {
    return (value > largest) | (value != value);
  } else {
    return value > largest;
  }
}

// Without `with_nan`, returns whether there was a NaN among the nodes' own values: the maxima are
// then to be taken again.
template <bool tracked, bool with_nan, class T, class Index, class Place>
bool max_rows(const Matrix<T>& x, int64_t channels, const Rows<Index>& rows, AfterMax after,
              T* best, Place* places) {
  std::atomic<bool> found{false};
  at::parallel_for(0, rows.count, grain_of(channels), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const Index first = rows.offsets[i], last = rows.offsets[i + 1];
      x.prefetch_far(i, channels);
      over_channels<T>(channels, [&](auto block, int64_t c) {
        using B = decltype(block);
        typename B::Value largest[B::count];
        typename B::Integer chosen[B::count] = {};
        const T lowest = first == last ? 0 : -std::numeric_limits<T>::infinity();
        for (int u = 0; u < B::count; u++) largest[u] = B::fill(lowest);
        for (Index edge = first; edge < last; edge++) {
          const T* source = x.row(rows.sources[edge]) + c;
          const auto place = B::fill_integer(edge - first);
          for (int u = 0; u < B::count; u++) {
            const auto value = B::load(source, u);
            const auto wins = wins_over<with_nan>(value, largest[u]);
            largest[u] = wins ? value : largest[u];
            if constexpr (tracked) chosen[u] = wins ? place : chosen[u];
          }
        }
        const auto zero = B::fill(0);
        typename B::Mask nan = {};
        for (int u = 0; u < B::count; u++) {
          const auto own = B::load(x.row(i) + c, u);
          nan |= own != own;
          auto value = largest[u];
          if (after.relative && first != last) value -= own;
          if (after.relu) value = value <= zero ? zero : value;
          B::store(best + i * channels + c, u, value);
          if constexpr (tracked) B::store_integer(places + i * channels + c, u, chosen[u]);
        }
        if (!with_nan && B::any(nan)) found = true;
      });
    }
  });
  return found;
}

template <bool tracked, class T, class Index, class Place>
void max_of(const Matrix<T>& x, int64_t channels, const Rows<Index>& rows, AfterMax after, T* best,
            Place* places) {
  if (max_rows<tracked, false>(x, channels, rows, after, best, places)) {
    max_rows<tracked, true>(x, channels, rows, after, best, places);
  }
}

// The gradient that a node's own value gets from its difference, to begin with.
template <class B, class Index>
auto own_part(const typename B::Value& grad, int64_t node, const Rows<Index>& rows, bool relative) {
  const bool differs = relative && rows.offsets[node] != rows.offsets[node + 1];
  return differs ? B::fill(0) - grad : B::fill(0);
}

template <class T, class Index, class Place>
void collect_largest(const Matrix<T>& grad, int64_t channels, const Place* places,
                     const Rows<Index>& rows, bool relative, T* grad_x) {
  at::parallel_for(0, rows.count, grain_of(channels), [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; j++) {
      over_channels<T>(channels, [&](auto block, int64_t c) {
        using B = decltype(block);
        const auto zero = B::fill(0);
        typename B::Value sum[B::count];
        for (int u = 0; u < B::count; u++) {
          sum[u] = own_part<B>(B::load(grad.row(j) + c, u), j, rows, relative);
        }
        for (Index at = rows.out_offsets[j]; at < rows.out_offsets[j + 1]; at++) {
          const int64_t i = rows.out_targets[at];
          const auto place = B::fill_integer(rows.out_edges[at] - rows.offsets[i]);
          for (int u = 0; u < B::count; u++) {
            const auto chosen = B::load_integer(places + i * channels + c, u);
            sum[u] += chosen == place ? B::load(grad.row(i) + c, u) : zero;
          }
        }
        for (int u = 0; u < B::count; u++) B::store(grad_x + j * channels + c, u, sum[u]);
      });
    }
  });
}

// The same for nodes first to last, which have no edge with others.
template <class T, class Index, class Place>
void hand_on_largest(int64_t first, int64_t last, const Matrix<T>& grad, int64_t channels,
                     const Place* places, const Rows<Index>& rows, bool relative, T* grad_x) {
  for (int64_t j = first; j < last; j++) {
    over_channels<T>(channels, [&](auto block, int64_t c) {
      using B = decltype(block);
      for (int u = 0; u < B::count; u++) {
        const auto own = B::load(grad.row(j) + c, u);
        B::store(grad_x + j * channels + c, u, own_part<B>(own, j, rows, relative));
      }
    });
  }
  for (int64_t i = first; i < last; i++) {
    over_channels<T>(channels, [&](auto block, int64_t c) {
      using B = decltype(block);
      const auto zero = B::fill(0);
      typename B::Value own[B::count];
      typename B::Integer chosen[B::count];
      for (int u = 0; u < B::count; u++) {
        own[u] = B::load(grad.row(i) + c, u);
        chosen[u] = B::load_integer(places + i * channels + c, u);
      }
      for (Index edge = rows.offsets[i]; edge < rows.offsets[i + 1]; edge++) {
        T* to = grad_x + rows.sources[edge] * channels + c;
        const auto place = B::fill_integer(edge - rows.offsets[i]);
        for (int u = 0; u < B::count; u++) {
          B::store(to, u, B::load(to, u) + (chosen[u] == place ? own[u] : zero));
        }
      }
    });
  }
}

}  // namespace

std::tuple<Tensor, Tensor> largest(const Tensor& given, SGAS_GRAPH_ARGUMENTS, AfterMax after) {
  check_graph(given.size(0), SGAS_GRAPH);
  const Tensor x = with_dense_rows(given);
  Tensor best = at::empty(x.sizes(), x.options());
  const auto options = x.options().dtype(place_type(degree));
  Tensor places = after.tracked ? at::empty(x.sizes(), options) : at::empty({0}, options);
  SGAS_DISPATCH(x.scalar_type(), sources.scalar_type(), "neighbor_max", [&] {
    const Rows<index_t> rows(offsets, sources, out_offsets, out_targets, out_edges);
    const Matrix<scalar_t> from(x);
    scalar_t* to = best.mutable_data_ptr<scalar_t>();
    const int64_t channels = x.size(1);
    with_places(places, [&](auto* chosen) {
      if (after.tracked) max_of<true>(from, channels, rows, after, to, chosen);
      else max_of<false>(from, channels, rows, after, to, chosen);
    });
  });
  return {best, places};
}

Tensor neighbor_max_backward(const Tensor& given, const Tensor& places, SGAS_GRAPH_ARGUMENTS,
                             bool relative) {
  check_graph(given.size(0), offsets, sources, out_offsets, out_targets, out_edges, degree);
  TORCH_CHECK(places.sizes() == given.sizes() && places.is_contiguous(),
              "the places have to be those of neighbor_max");
  const Tensor grad = with_dense_rows(given);
  Tensor grad_x = at::empty(grad.sizes(), grad.options());
  SGAS_DISPATCH(grad.scalar_type(), sources.scalar_type(), "neighbor_max_backward", [&] {
    const Rows<index_t> rows(offsets, sources, out_offsets, out_targets, out_edges);
    with_places(places, [&](const auto* chosen) {
      const Matrix<scalar_t> from(grad);
      scalar_t* to = grad_x.mutable_data_ptr<scalar_t>();
      over_closed_ranges(
          rows,
          [&](int64_t first, int64_t last) {
            hand_on_largest(first, last, from, grad.size(1), chosen, rows, relative, to);
          },
          [&] { collect_largest(from, grad.size(1), chosen, rows, relative, to); });
    });
  });
  return grad_x;
}

namespace {

std::tuple<Tensor, Tensor> neighbor_max(const Tensor& x, SGAS_GRAPH_ARGUMENTS, bool relative) {
  return largest(x, SGAS_GRAPH, {relative, false, true});
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(sgas_gcn, m) {
  m.def("neighbor_max(Tensor x, " SGAS_GRAPH_SCHEMA
        ", bool relative) -> (Tensor best, Tensor places)");
  m.def("neighbor_max_backward(Tensor grad, Tensor places, " SGAS_GRAPH_SCHEMA
        ", bool relative) -> Tensor");
}

TORCH_LIBRARY_IMPL(sgas_gcn, CPU, m) {
  m.impl("neighbor_max", neighbor_max);
  m.impl("neighbor_max_backward", neighbor_max_backward);
}

}  // namespace sgas
