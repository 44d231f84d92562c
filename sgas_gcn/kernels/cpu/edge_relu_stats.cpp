// What a batch norm over edges followed by a maximum needs of h = ReLU(target_i + source_j), where
// nothing is stored for single edges.
//
// Forward: the extremum over the edges of each node (by sign, so that the caller's norm may have
// a negative weight), the sums over them of h and of [h > 0], and over all edges Σh and Σh².
// Backward, with G = dL/dselected, c1 = dL/dΣh and c2 = 2 dL/dΣh²: each edge has the gradient
// [h > 0](c1 + c2 h), and the selected one G on top. Summed over the edges of a target that is
// c1 · counts + c2 · sums + G; over those of a source, h is computed again.

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <vector>

#include "lanes.h"
#include "rows.h"

namespace sgas {
namespace {

constexpr int64_t TILE = 16;    // nodes whose sums are added in T before they go to float64
constexpr int64_t CHUNK = 512;  // nodes of one partial sum, the same for any number of threads

// One matrix of the arguments: its first number and how far rows stand apart.
template <class T>
struct Matrix {
  const T* data;
  int64_t stride;
  explicit Matrix(const Tensor& x) : data(x.const_data_ptr<T>()), stride(x.stride(0)) {}
  const T* row(int64_t i) const { return data + i * stride; }
};

template <class T>
struct Found {
  T* selected;
  int32_t* edges;
  T* sums;
  T* counts;
};

// One node; adds its Σh and Σh² to `total` and `squares` `[channels]`.
template <class T, class Index>
void visit(int64_t i, int64_t channels, const Matrix<T>& target, const Matrix<T>& source,
           const T* sign, const Rows<Index>& rows, const Found<T>& found, T* total, T* squares) {
  const Index first = rows.offsets[i], last = rows.offsets[i + 1];
  over_channels<T>(channels, [&](auto block, int64_t c) {
    using B = decltype(block);
    using Value = typename B::Value;
    const Value zero = B::fill(0), one = B::fill(1);
    Value own[B::count], signs[B::count], best[B::count];
    Value sum[B::count] = {}, count[B::count] = {}, square[B::count] = {};
    typename B::Integer chosen[B::count];
    for (int u = 0; u < B::count; u++) {
      own[u] = B::load(target.row(i) + c, u);
      signs[u] = B::load(sign + c, u);
      best[u] = B::fill(-std::numeric_limits<T>::infinity());
      chosen[u] = B::fill_integer(first == last ? -1 : first);
    }
    for (Index edge = first; edge < last; edge++) {
      const T* row = source.row(rows.nodes[edge]) + c;
      const auto number = B::fill_integer(edge);
      for (int u = 0; u < B::count; u++) {
        const Value other = B::load(row, u);
        const Value h = own[u] + other;
        const auto off = h <= zero;  // false for a NaN, which so reaches the statistics
        const Value relu = off ? zero : h;
        sum[u] += relu;
        count[u] += off ? zero : one;
        square[u] += relu * relu;
        const Value signed_other = signs[u] * other;
        const auto wins = signed_other > best[u];
        best[u] = wins ? signed_other : best[u];
        chosen[u] = wins ? number : chosen[u];
      }
    }
    const int64_t at = i * channels + c;
    for (int u = 0; u < B::count; u++) {
      const Value h = first == last ? zero : own[u] + signs[u] * best[u];
      B::store(found.selected + at, u, h <= zero ? zero : h);
      B::store_integer(found.edges + at, u, chosen[u]);
      B::store(found.sums + at, u, sum[u]);
      B::store(found.counts + at, u, count[u]);
      B::store(total + c, u, B::load(total + c, u) + sum[u]);
      B::store(squares + c, u, B::load(squares + c, u) + square[u]);
    }
  });
}

// `partial` is `[chunks, 2, channels]`: Σh and Σh² of each chunk of nodes.
template <class T, class Index>
void visit_all(int64_t channels, const Matrix<T>& target, const Matrix<T>& source, const T* sign,
               const Rows<Index>& rows, const Found<T>& found, double* partial) {
  const int64_t chunks = (rows.count + CHUNK - 1) / CHUNK;
  at::parallel_for(0, chunks, 1, [&](int64_t begin, int64_t end) {
    std::vector<T> tile(2 * channels);
    for (int64_t chunk = begin; chunk < end; chunk++) {
      const int64_t stop = std::min(rows.count, (chunk + 1) * CHUNK);
      for (int64_t i = chunk * CHUNK; i < stop; i++) {
        visit(i, channels, target, source, sign, rows, found, tile.data(),
              tile.data() + channels);
        if ((i + 1) % TILE != 0 && i + 1 != stop) continue;
        double* sums = partial + chunk * 2 * channels;
        for (int64_t c = 0; c < 2 * channels; c++) sums[c] += tile[c];
        std::fill(tile.begin(), tile.end(), T(0));
      }
    }
  });
}

template <class T, class Index>
void collect(int64_t channels, const Matrix<T>& grad, const T* constant, const T* slope,
             const Matrix<T>& target, const Matrix<T>& source, const int32_t* edges,
             const Rows<Index>& out_rows, T* grad_source) {
  at::parallel_for(0, out_rows.count, grain_of(channels), [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; j++) {
      over_channels<T>(channels, [&](auto block, int64_t c) {
        using B = decltype(block);
        using Value = typename B::Value;
        const Value zero = B::fill(0);
        Value own[B::count], c1[B::count], c2[B::count], sum[B::count] = {};
        for (int u = 0; u < B::count; u++) {
          own[u] = B::load(source.row(j) + c, u);
          c1[u] = B::load(constant + c, u);
          c2[u] = B::load(slope + c, u);
        }
        for (Index place = out_rows.offsets[j]; place < out_rows.offsets[j + 1]; place++) {
          const int64_t i = out_rows.nodes[place];
          const auto edge = B::fill_integer(out_rows.edges[place]);
          for (int u = 0; u < B::count; u++) {
            const Value h = B::load(target.row(i) + c, u) + own[u];
            const auto chosen = B::load_integer(edges + i * channels + c, u);
            Value grad_h = c1[u] + c2[u] * h;
            grad_h += chosen == edge ? B::load(grad.row(i) + c, u) : zero;
            sum[u] += h > zero ? grad_h : zero;
          }
        }
        for (int u = 0; u < B::count; u++) B::store(grad_source + j * channels + c, u, sum[u]);
      });
    }
  });
}

// grad_target = c1 · counts + c2 · sums + [selected > 0] G.
template <class T>
void add_up(int64_t num_nodes, int64_t channels, const Matrix<T>& grad, const T* constant,
            const T* slope, const T* selected, const T* sums, const T* counts, T* grad_target) {
  at::parallel_for(0, num_nodes, grain_of(channels), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const int64_t row = i * channels;
      over_channels<T>(channels, [&](auto block, int64_t c) {
        using B = decltype(block);
        for (int u = 0; u < B::count; u++) {
          const auto on = B::load(selected + row + c, u) > B::fill(0);
          const auto value = B::load(constant + c, u) * B::load(counts + row + c, u) +
                             B::load(slope + c, u) * B::load(sums + row + c, u);
          const auto chosen = on ? B::load(grad.row(i) + c, u) : B::fill(0);
          B::store(grad_target + row + c, u, value + chosen);
        }
      });
    }
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> edge_relu_stats(
    const Tensor& given_target, const Tensor& given_source, const Tensor& given_sign,
    const Tensor& offsets, const Tensor& sources, const Tensor& out_offsets,
    const Tensor& out_targets, const Tensor& out_edges) {
  check_rows(offsets, sources, given_target.size(0));
  TORCH_CHECK(given_target.sizes() == given_source.sizes(), "target and source differ in shape");
  const Tensor target = with_dense_rows(given_target), source = with_dense_rows(given_source);
  const Tensor sign = given_sign.to(target.scalar_type()).contiguous();
  const int64_t channels = target.size(1), chunks = (target.size(0) + CHUNK - 1) / CHUNK;
  TORCH_CHECK(sign.numel() == channels, "there have to be as many signs as channels");
  Tensor selected = at::empty(target.sizes(), target.options());
  Tensor edges = at::empty(target.sizes(), target.options().dtype(at::kInt));
  Tensor sums = at::empty(target.sizes(), target.options());
  Tensor counts = at::empty(target.sizes(), target.options());
  Tensor partial = at::zeros({chunks, 2, channels}, target.options().dtype(at::kDouble));
  Tensor total = at::zeros({channels}, partial.options()), squares = at::zeros({channels}, partial.options());
  SGAS_DISPATCH(target.scalar_type(), sources.scalar_type(), "edge_relu_stats", [&] {
    const Found<scalar_t> found{
        selected.mutable_data_ptr<scalar_t>(), edges.mutable_data_ptr<int32_t>(),
        sums.mutable_data_ptr<scalar_t>(), counts.mutable_data_ptr<scalar_t>()};
    visit_all<scalar_t, index_t>(channels, Matrix<scalar_t>(target), Matrix<scalar_t>(source),
                                 sign.const_data_ptr<scalar_t>(), {offsets, sources}, found,
                                 partial.mutable_data_ptr<double>());
  });
  const double* part = partial.const_data_ptr<double>();
  for (int64_t chunk = 0; chunk < chunks; chunk++, part += 2 * channels) {
    for (int64_t c = 0; c < channels; c++) {
      total.mutable_data_ptr<double>()[c] += part[c];
      squares.mutable_data_ptr<double>()[c] += part[channels + c];
    }
  }
  return {selected, edges, sums, counts, total, squares};
}

std::tuple<Tensor, Tensor> edge_relu_stats_backward(
    const Tensor& given_grad, const Tensor& grad_total, const Tensor& grad_squares,
    const Tensor& given_target, const Tensor& given_source, const Tensor& selected,
    const Tensor& edges, const Tensor& sums, const Tensor& counts, const Tensor& out_offsets,
    const Tensor& out_targets, const Tensor& out_edges) {
  check_rows(out_offsets, out_targets, given_grad.size(0));
  check_edges(out_edges, out_targets);
  for (const Tensor* kept : {&selected, &edges, &sums, &counts}) {
    TORCH_CHECK(kept->sizes() == given_grad.sizes() && kept->is_contiguous(),
                "what edge_relu_stats gave has to come back as it was");
  }
  const Tensor grad = with_dense_rows(given_grad), target = with_dense_rows(given_target),
               source = with_dense_rows(given_source);
  const auto type = target.scalar_type();
  const Tensor constant = grad_total.to(type).contiguous();
  const Tensor slope = grad_squares.mul(2).to(type).contiguous();
  const int64_t num_nodes = target.size(0), channels = target.size(1);
  Tensor grad_target = at::empty(target.sizes(), target.options());
  Tensor grad_source = at::empty(target.sizes(), target.options());
  SGAS_DISPATCH(type, out_targets.scalar_type(), "edge_relu_stats_backward", [&] {
    const auto* c1 = constant.const_data_ptr<scalar_t>();
    const auto* c2 = slope.const_data_ptr<scalar_t>();
    const Matrix<scalar_t> g(grad);
    collect<scalar_t, index_t>(channels, g, c1, c2, Matrix<scalar_t>(target),
                               Matrix<scalar_t>(source), edges.const_data_ptr<int32_t>(),
                               {out_offsets, out_targets, &out_edges},
                               grad_source.mutable_data_ptr<scalar_t>());
    add_up<scalar_t>(num_nodes, channels, g, c1, c2, selected.const_data_ptr<scalar_t>(),
                     sums.const_data_ptr<scalar_t>(), counts.const_data_ptr<scalar_t>(),
                     grad_target.mutable_data_ptr<scalar_t>());
  });
  return {grad_target, grad_source};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(sgas_gcn, m) {
  m.def(
      "edge_relu_stats(Tensor target, Tensor source, Tensor sign, Tensor offsets, Tensor sources, "
      "Tensor out_offsets, Tensor out_targets, Tensor out_edges) -> (Tensor selected, "
      "Tensor edges, Tensor sums, Tensor counts, Tensor total, Tensor squares)");
  m.def(
      "edge_relu_stats_backward(Tensor grad_selected, Tensor grad_total, Tensor grad_squares, "
      "Tensor target, Tensor source, Tensor selected, Tensor edges, Tensor sums, Tensor counts, "
      "Tensor out_offsets, Tensor out_targets, Tensor out_edges) -> (Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(sgas_gcn, CPU, m) {
  m.impl("edge_relu_stats", edge_relu_stats);
  m.impl("edge_relu_stats_backward", edge_relu_stats_backward);
}

}  // namespace sgas
