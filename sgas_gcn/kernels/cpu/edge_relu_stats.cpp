// What a batch norm over edges followed by a maximum needs of h = ReLU(target_i + source_j), where
// nothing is stored for single edges.
//
// Forward: the extremum over the edges of each node (by sign, so that the caller's norm may have
// a negative weight), and over all edges Σh and Σh². Backward, with G = dL/dselected,
// c1 = dL/dΣh and c2 = 2 dL/dΣh²: each edge has the gradient [h > 0](c1 + c2 h), and the selected
// one G on top; h is computed again. Where graphs stand side by side each edge is visited once, and
// adds to the rows of both its nodes; a graph that threads share is visited by target and by source,
// so that no two of them write to one row. Sums are in the same order in both cases.

#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <vector>

#include "lanes.h"
#include "neighbors.h"
#include "ranges.h"

namespace sgas {
namespace {

constexpr int64_t TILE = 16;    // nodes whose sums are added in T before they go to float64
constexpr int64_t CHUNK = 512;  // nodes of one partial sum, the same for any number of threads

template <class T, class Place>
struct Found {
  T* selected;
  Place* places;
  T* total;    // [channels], of a tile
  T* squares;  // [channels], of a tile
};

template <class T, class Index, class Place>
void visit(int64_t i, int64_t channels, const Matrix<T>& target, const Matrix<T>& source,
           const T* sign, const Rows<Index>& rows, const Found<T, Place>& found) {
  const Index first = rows.offsets[i], last = rows.offsets[i + 1];
  over_channels<T>(channels, [&](auto block, int64_t c) {
    using B = decltype(block);
    using Value = typename B::Value;
    const Value zero = B::fill(0);
    Value own[B::count], signs[B::count], best[B::count];
    Value sum[B::count] = {}, square[B::count] = {};
    typename B::Integer chosen[B::count] = {};
    for (int u = 0; u < B::count; u++) {
      own[u] = B::load(target.row(i) + c, u);
      signs[u] = B::load(sign + c, u);
      best[u] = B::fill(-std::numeric_limits<T>::infinity());
    }
    for (Index edge = first; edge < last; edge++) {
      const T* row = source.row(rows.sources[edge]) + c;
      const auto place = B::fill_integer(edge - first);
      for (int u = 0; u < B::count; u++) {
        const Value other = B::load(row, u);
        const Value h = own[u] + other;
        const Value relu = h <= zero ? zero : h;  // a NaN stays one and reaches the statistics
        sum[u] += relu;
        square[u] += relu * relu;
        const Value signed_other = signs[u] * other;
        const auto wins = signed_other > best[u];
        best[u] = wins ? signed_other : best[u];
        chosen[u] = wins ? place : chosen[u];
      }
    }
    for (int u = 0; u < B::count; u++) {
      const Value h = first == last ? zero : own[u] + signs[u] * best[u];
      B::stream(found.selected + i * channels + c, u, h <= zero ? zero : h);
      B::store_integer(found.places + i * channels + c, u, chosen[u]);
      B::store(found.total + c, u, B::load(found.total + c, u) + sum[u]);
      B::store(found.squares + c, u, B::load(found.squares + c, u) + square[u]);
    }
  });
}

// `partial` is `[chunks, 2, channels]`: Σh and Σh² of each chunk of nodes.
template <class T, class Index, class Place>
void visit_all(int64_t channels, const Matrix<T>& target, const Matrix<T>& source, const T* sign,
               const Rows<Index>& rows, T* selected, Place* places, double* partial) {
  const int64_t chunks = (rows.count + CHUNK - 1) / CHUNK;
  at::parallel_for(0, chunks, 1, [&](int64_t begin, int64_t end) {
    std::vector<T> tile(2 * channels);
    const Found<T, Place> found{selected, places, tile.data(), tile.data() + channels};
    for (int64_t chunk = begin; chunk < end; chunk++) {
      const int64_t stop = std::min(rows.count, (chunk + 1) * CHUNK);
      for (int64_t i = chunk * CHUNK; i < stop; i++) {
        source.prefetch_far(i, channels);
        visit(i, channels, target, source, sign, rows, found);
        if ((i + 1) % TILE != 0 && i + 1 != stop) continue;
        double* sums = partial + chunk * 2 * channels;
        for (int64_t c = 0; c < 2 * channels; c++) sums[c] += tile[c];
        std::fill(tile.begin(), tile.end(), T(0));
      }
    }
    finish_streams();
  });
}

// What the backward pass reads of each edge.
template <class T, class Place>
struct Kept {
  Matrix<T> grad, target, source;
  const T* factor;    // of grad
  const T* constant;  // c1
  const T* slope;     // c2
  const T* selected;
  const Place* places;
};

template <class T, class Index, class Place>
void by_target(int64_t channels, const Kept<T, Place>& kept, const Rows<Index>& rows, T* out,
               int64_t out_stride) {
  at::parallel_for(0, rows.count, grain_of(channels), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      over_channels<T>(channels, [&](auto block, int64_t c) {
        using B = decltype(block);
        using Value = typename B::Value;
        const Value zero = B::fill(0);
        const int64_t at = i * channels + c;
        Value own[B::count], c1[B::count], c2[B::count], sum[B::count];
        for (int u = 0; u < B::count; u++) {
          own[u] = B::load(kept.target.row(i) + c, u);
          c1[u] = B::load(kept.constant + c, u);
          c2[u] = B::load(kept.slope + c, u);
          const auto on = B::load(kept.selected + at, u) > zero;
          sum[u] = on ? B::load(kept.factor + c, u) * B::load(kept.grad.row(i) + c, u) : zero;
        }
        for (Index edge = rows.offsets[i]; edge < rows.offsets[i + 1]; edge++) {
          const T* row = kept.source.row(rows.sources[edge]) + c;
          for (int u = 0; u < B::count; u++) {
            const Value h = own[u] + B::load(row, u);
            sum[u] += h > zero ? c1[u] + c2[u] * h : zero;
          }
        }
        for (int u = 0; u < B::count; u++) B::store(out + i * out_stride + c, u, sum[u]);
      });
    }
  });
}

template <class T, class Index, class Place>
void by_source(int64_t channels, const Kept<T, Place>& kept, const Rows<Index>& rows, T* out,
               int64_t out_stride) {
  at::parallel_for(0, rows.count, grain_of(channels), [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; j++) {
      over_channels<T>(channels, [&](auto block, int64_t c) {
        using B = decltype(block);
        using Value = typename B::Value;
        const Value zero = B::fill(0);
        Value own[B::count], c1[B::count], c2[B::count], factor[B::count], sum[B::count] = {};
        for (int u = 0; u < B::count; u++) {
          own[u] = B::load(kept.source.row(j) + c, u);
          factor[u] = B::load(kept.factor + c, u);
          c1[u] = B::load(kept.constant + c, u);
          c2[u] = B::load(kept.slope + c, u);
        }
        for (Index at = rows.out_offsets[j]; at < rows.out_offsets[j + 1]; at++) {
          const int64_t i = rows.out_targets[at];
          const auto place = B::fill_integer(rows.out_edges[at] - rows.offsets[i]);
          for (int u = 0; u < B::count; u++) {
            const Value h = B::load(kept.target.row(i) + c, u) + own[u];
            const auto chosen = B::load_integer(kept.places + i * channels + c, u);
            Value grad_h = c1[u] + c2[u] * h;
            grad_h += chosen == place ? factor[u] * B::load(kept.grad.row(i) + c, u) : zero;
            sum[u] += h > zero ? grad_h : zero;
          }
        }
        for (int u = 0; u < B::count; u++) B::store(out + j * out_stride + c, u, sum[u]);
      });
    }
  });
}

// Both sums for nodes first to last, which have no edge with others; `out` is `[N, 2, channels]`.
template <class T, class Index, class Place>
void by_both_ends(int64_t first, int64_t last, int64_t channels, const Kept<T, Place>& kept,
                  const Rows<Index>& rows, T* out) {
  const int64_t stride = 2 * channels;
  T* of_sources = out + channels;
  for (int64_t j = first; j < last; j++) std::fill_n(of_sources + j * stride, channels, T(0));
  for (int64_t i = first; i < last; i++) {
    kept.source.prefetch_far(i, channels);
    over_channels<T>(channels, [&](auto block, int64_t c) {
      using B = decltype(block);
      using Value = typename B::Value;
      const Value zero = B::fill(0);
      const int64_t at = i * channels + c;
      Value own[B::count], c1[B::count], c2[B::count], selected[B::count], sum[B::count];
      typename B::Integer chosen[B::count];
      for (int u = 0; u < B::count; u++) {
        own[u] = B::load(kept.target.row(i) + c, u);
        c1[u] = B::load(kept.constant + c, u);
        c2[u] = B::load(kept.slope + c, u);
        chosen[u] = B::load_integer(kept.places + at, u);
        selected[u] = B::load(kept.factor + c, u) * B::load(kept.grad.row(i) + c, u);
        sum[u] = B::load(kept.selected + at, u) > zero ? selected[u] : zero;
      }
      for (Index edge = rows.offsets[i]; edge < rows.offsets[i + 1]; edge++) {
        const int64_t j = rows.sources[edge];
        const T* row = kept.source.row(j) + c;
        T* to = of_sources + j * stride + c;
        const auto place = B::fill_integer(edge - rows.offsets[i]);
        for (int u = 0; u < B::count; u++) {
          const Value h = own[u] + B::load(row, u);
          const Value grad_h = c1[u] + c2[u] * h;
          const Value with_selected = grad_h + (chosen[u] == place ? selected[u] : zero);
          sum[u] += h > zero ? grad_h : zero;
          B::store(to, u, B::load(to, u) + (h > zero ? with_selected : zero));
        }
      }
      for (int u = 0; u < B::count; u++) B::store(out + i * stride + c, u, sum[u]);
    });
  }
}

// The two rows of the sum over the chunks, always in the same order.
std::tuple<Tensor, Tensor> sum_of_chunks(const Tensor& partial) {
  const int64_t chunks = partial.size(0), channels = partial.size(2);
  Tensor sums = at::zeros({2, channels}, partial.options());
  const double* part = partial.const_data_ptr<double>();
  double* sum = sums.mutable_data_ptr<double>();
  for (int64_t chunk = 0; chunk < chunks; chunk++) {
    for (int64_t c = 0; c < 2 * channels; c++) sum[c] += *part++;
  }
  return {sums[0].clone(), sums[1].clone()};
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor, Tensor> edge_relu_stats(const Tensor& given_target,
                                                           const Tensor& given_source,
                                                           const Tensor& given_sign,
                                                           SGAS_GRAPH_ARGUMENTS) {
  check_graph(given_target.size(0), offsets, sources, out_offsets, out_targets, out_edges, degree);
  TORCH_CHECK(given_target.sizes() == given_source.sizes(), "target and source differ in shape");
  const Tensor target = with_dense_rows(given_target), source = with_dense_rows(given_source);
  const Tensor sign = given_sign.to(target.scalar_type()).contiguous();
  const int64_t channels = target.size(1), chunks = (target.size(0) + CHUNK - 1) / CHUNK;
  TORCH_CHECK(sign.numel() == channels, "there have to be as many signs as channels");
  Tensor selected = at::empty(target.sizes(), target.options());
  Tensor places = at::empty(target.sizes(), target.options().dtype(place_type(degree)));
  Tensor partial = at::zeros({chunks, 2, channels}, target.options().dtype(at::kDouble));
  SGAS_DISPATCH(target.scalar_type(), sources.scalar_type(), "edge_relu_stats", [&] {
    const Rows<index_t> rows(offsets, sources, out_offsets, out_targets, out_edges);
    with_places(places, [&](auto* chosen) {
      visit_all(channels, Matrix<scalar_t>(target), Matrix<scalar_t>(source),
                sign.const_data_ptr<scalar_t>(), rows, selected.mutable_data_ptr<scalar_t>(),
                chosen, partial.mutable_data_ptr<double>());
    });
  });
  auto [total, squares] = sum_of_chunks(partial);
  return {selected, places, total, squares};
}

Tensor edge_gradients(const Tensor& given_grad, const std::optional<Tensor>& given_factor,
                      const Tensor& given_constant, const Tensor& given_slope,
                      const Tensor& given_target, const Tensor& given_source,
                      const Tensor& selected, const Tensor& places, SGAS_GRAPH_ARGUMENTS) {
  check_graph(given_grad.size(0), SGAS_GRAPH);
  for (const Tensor* each : {&selected, &places}) {
    TORCH_CHECK(each->sizes() == given_grad.sizes() && each->is_contiguous(),
                "what edge_relu_stats gave has to come back as it was");
  }
  const Tensor grad = with_dense_rows(given_grad), target = with_dense_rows(given_target),
               source = with_dense_rows(given_source);
  const auto type = target.scalar_type();
  const int64_t channels = target.size(1);
  const Tensor constant = given_constant.to(type).contiguous();
  const Tensor slope = given_slope.to(type).contiguous();
  const Tensor factor = given_factor ? given_factor->to(type).contiguous()
                                     : at::ones({channels}, target.options());
  Tensor out = at::empty({target.size(0), 2 * channels}, target.options());
  SGAS_DISPATCH(type, sources.scalar_type(), "edge_relu_stats_backward", [&] {
    const Rows<index_t> rows(offsets, sources, out_offsets, out_targets, out_edges);
    with_places(places, [&](auto* chosen) {
      using Place = std::remove_pointer_t<decltype(chosen)>;
      const Kept<scalar_t, Place> kept{Matrix<scalar_t>(grad),
                                       Matrix<scalar_t>(target),
                                       Matrix<scalar_t>(source),
                                       factor.const_data_ptr<scalar_t>(),
                                       constant.const_data_ptr<scalar_t>(),
                                       slope.const_data_ptr<scalar_t>(),
                                       selected.const_data_ptr<scalar_t>(),
                                       chosen};
      scalar_t* to = out.mutable_data_ptr<scalar_t>();
      over_closed_ranges(
          rows,
          [&](int64_t first, int64_t last) {
            by_both_ends(first, last, channels, kept, rows, to);
          },
          [&] {
            by_target(channels, kept, rows, to, 2 * channels);
            by_source(channels, kept, rows, to + channels, 2 * channels);
          });
    });
  });
  return out;
}

namespace {

std::tuple<Tensor, Tensor> edge_relu_stats_backward(
    const Tensor& grad, const Tensor& grad_total, const Tensor& grad_squares, const Tensor& target,
    const Tensor& source, const Tensor& selected, const Tensor& places, SGAS_GRAPH_ARGUMENTS) {
  const Tensor both = edge_gradients(grad, std::nullopt, grad_total, grad_squares.mul(2), target,
                                     source, selected, places, SGAS_GRAPH);
  const int64_t channels = target.size(1);
  return {both.narrow(1, 0, channels).contiguous(), both.narrow(1, channels, channels).contiguous()};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(sgas_gcn, m) {
  m.def("edge_relu_stats(Tensor target, Tensor source, Tensor sign, " SGAS_GRAPH_SCHEMA
        ") -> (Tensor selected, Tensor places, Tensor total, Tensor squares)");
  m.def(
      "edge_relu_stats_backward(Tensor grad_selected, Tensor grad_total, Tensor grad_squares, "
      "Tensor target, Tensor source, Tensor selected, Tensor places, " SGAS_GRAPH_SCHEMA
      ") -> (Tensor grad_target, Tensor grad_source)");
}

TORCH_LIBRARY_IMPL(sgas_gcn, CPU, m) {
  m.impl("edge_relu_stats", edge_relu_stats);
  m.impl("edge_relu_stats_backward", edge_relu_stats_backward);
}

}  // namespace sgas
