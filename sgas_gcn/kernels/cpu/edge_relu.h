// What a batch norm over edges followed by a maximum needs of h = ReLU(target_i + source_j), where
// nothing is stored for single edges.
//
// Forward: the extremum over the edges of each node (by sign, so that the caller's norm may have
// a negative weight), and over all edges Σh and Σh². Backward, with G = dL/dselected,
// c1 = dL/dΣh and c2 = 2 dL/dΣh²: each edge has the gradient [h > 0](c1 + c2 h), and the selected
// one G on top; h is computed again. Where graphs stand side by side each edge is visited once, and
// adds to the rows of both its nodes; a graph that threads share is visited by target and by source,
// so that no two of them write to one row. Sums are in the same order in both cases.
#pragma once


#include <limits>

#include "columns.h"
#include "lanes.h"
#include "rows.h"

namespace sgas {

constexpr int64_t NODES_AT_ONCE = 16;  // whose sums are added in T before they go to float64

// What is found of some nodes: extrema and their places, by node, and the sums over all of them.
template <class T, class Place>
struct EdgeStats {
  T* selected;
  Place* places;
  int64_t stride;          // of both
  double *total, *squares;  // [channels]
};

template <class T, class Place>
void visit(int64_t i, int64_t channels, const Matrix<T>& target, const Matrix<T>& source,
           const T* sign, const Rows& rows, const EdgeStats<T, Place>& found, const T* reference,
           T* total, T* squares) {
  const Index first = rows.offsets[i], last = rows.offsets[i + 1];
  over_channels<T>(channels, [&](auto block, int64_t c) {
    using B = decltype(block);
    using Value = typename B::Value;
    const Value zero = B::fill(0);
    Value own[B::count], signs[B::count], best[B::count], near[B::count];
    Value sum[B::count] = {}, square[B::count] = {};
    typename B::Integer chosen[B::count] = {};
    for (int u = 0; u < B::count; u++) {
      own[u] = B::load(target.row(i) + c, u);
      signs[u] = B::load(sign + c, u);
      near[u] = B::load(reference + c, u);
      best[u] = B::fill(-std::numeric_limits<T>::infinity());
    }
    for (Index edge = first; edge < last; edge++) {
      const T* row = source.row(rows.sources[edge]) + c;
      const auto place = B::fill_integer(edge - first);
      for (int u = 0; u < B::count; u++) {
        const Value other = B::load(row, u);
        const Value h = own[u] + other;
        const Value relu = B::larger(zero, h);  // a NaN stays one and reaches the statistics
        const Value apart = relu - near[u];
        sum[u] += apart;
        square[u] += apart * apart;
        const Value signed_other = signs[u] * other;
        const auto wins = signed_other > best[u];
        best[u] = B::larger(signed_other, best[u]);
        chosen[u] = wins ? place : chosen[u];
      }
    }
    for (int u = 0; u < B::count; u++) {
      const Value h = first == last ? zero : own[u] + signs[u] * best[u];
      B::stream(found.selected + i * found.stride + c, u, B::larger(zero, h));
      B::store_integer(found.places + i * found.stride + c, u, chosen[u]);
      B::store(total + c, u, B::load(total + c, u) + sum[u]);
      B::store(squares + c, u, B::load(squares + c, u) + square[u]);
    }
  });
}

// h of the first edge of some nodes, near which the others are taken to be.
template <class T>
void first_edge(int64_t start, int64_t stop, int64_t channels, const Matrix<T>& target,
                const Matrix<T>& source, const Rows& rows, T* reference) {
  while (start < stop && rows.offsets[start] == rows.offsets[start + 1]) start++;
  if (start == stop) return std::fill_n(reference, channels, T(0)), void();
  const T *own = target.row(start), *other = source.row(rows.sources[rows.offsets[start]]);
  for (int64_t c = 0; c < channels; c++) reference[c] = std::max(T(0), own[c] + other[c]);
}

// Nodes first to last; `sums` holds 3 · channels numbers. The thread has to finish its streams.
template <class T, class Place>
void visit_nodes(int64_t first, int64_t last, int64_t channels, const Matrix<T>& target,
                 const Matrix<T>& source, const T* sign, const Rows& rows,
                 const EdgeStats<T, Place>& found, T* sums) {
  for (int64_t start = first; start < last; start += NODES_AT_ONCE) {
    const int64_t stop = std::min(last, start + NODES_AT_ONCE);
    T *total = sums, *squares = sums + channels, *reference = squares + channels;
    std::fill_n(sums, 2 * channels, T(0));
    first_edge(start, stop, channels, target, source, rows, reference);
    for (int64_t i = start; i < stop; i++) {
      source.prefetch_far(i, channels);
      visit(i, channels, target, source, sign, rows, found, reference, total, squares);
    }
    add_sums<SQUARES>(rows.offsets[stop] - rows.offsets[start], channels, total, squares, reference,
                      found.total, found.squares);
  }
}

// What the backward pass reads of each edge.
template <class T, class Place>
struct EdgesKept {
  Matrix<T> grad, target, source, selected;
  Matrix<Place> places;
  const T* factor;    // of grad
  const T* constant;  // c1
  const T* slope;     // c2
};

template <class T, class Place>
void by_target(int64_t channels, const EdgesKept<T, Place>& kept, const Rows& rows, T* out,
               int64_t out_stride) {
  parallel_for(0, rows.count, grain_of(channels), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      over_channels<T>(channels, [&](auto block, int64_t c) {
        using B = decltype(block);
        using Value = typename B::Value;
        const Value zero = B::fill(0);
        Value own[B::count], c1[B::count], c2[B::count], sum[B::count];
        for (int u = 0; u < B::count; u++) {
          own[u] = B::load(kept.target.row(i) + c, u);
          c1[u] = B::load(kept.constant + c, u);
          c2[u] = B::load(kept.slope + c, u);
          const auto on = B::load(kept.selected.row(i) + c, u) > zero;
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

template <class T, class Place>
void by_source(int64_t channels, const EdgesKept<T, Place>& kept, const Rows& rows, T* out,
               int64_t out_stride) {
  parallel_for(0, rows.count, grain_of(channels), [&](int64_t begin, int64_t end) {
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
            const auto chosen = B::load_integer(kept.places.row(i) + c, u);
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

// Both sums for nodes first to last, which have no edge with others: those of targets in the first
// columns of the rows of `out`, those of sources in the next.
template <class T, class Place>
void by_both_ends(int64_t first, int64_t last, int64_t channels, const EdgesKept<T, Place>& kept,
                  const Rows& rows, T* out, int64_t stride) {
  T* of_sources = out + channels;
  for (int64_t j = first; j < last; j++) std::fill_n(of_sources + j * stride, channels, T(0));
  for (int64_t i = first; i < last; i++) {
    kept.source.prefetch_far(i, channels);
    over_channels<T>(channels, [&](auto block, int64_t c) {
      using B = decltype(block);
      using Value = typename B::Value;
      const Value zero = B::fill(0);
      Value own[B::count], c1[B::count], c2[B::count], selected[B::count], sum[B::count];
      typename B::Integer chosen[B::count];
      B::prefetch(kept.grad.row(i + ROWS_AHEAD) + c);
      B::prefetch(kept.selected.row(i + ROWS_AHEAD) + c);
      prefetch(kept.places.row(i + ROWS_AHEAD) + c);
      for (int u = 0; u < B::count; u++) {
        own[u] = B::load(kept.target.row(i) + c, u);
        c1[u] = B::load(kept.constant + c, u);
        c2[u] = B::load(kept.slope + c, u);
        chosen[u] = B::load_integer(kept.places.row(i) + c, u);
        selected[u] = B::load(kept.factor + c, u) * B::load(kept.grad.row(i) + c, u);
        sum[u] = B::load(kept.selected.row(i) + c, u) > zero ? selected[u] : zero;
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

}  // namespace sgas
