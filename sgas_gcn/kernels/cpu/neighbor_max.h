// Maximum over the neighbours of each node, less its own value where `relative`, and the place among
// its edges of the one that had it.
//
// The edge is kept and not the source: a source may be a node's neighbour twice, and only one of
// the two takes the gradient. Where threads share a graph each source collects its gradient over the
// edges that leave it, so that no two of them write to one place; else each node hands its gradient
// on. The order of a sum is the same.
#pragma once


#include <atomic>
#include <limits>

#include "columns.h"
#include "lanes.h"
#include "rows.h"

namespace sgas {

// What becomes of a maximum before it is written: the node's own value is taken off, where it has
// edges, and negative values become 0.
struct AfterMax {
  bool relative, relu;
};

// Takes the value where it is larger; a NaN wins and stays, so that it is seen.
template <bool with_nan, class Value>
auto wins_over(Value value, Value largest) {
  if constexpr (with_nan) {
    return (value > largest) | (value != value);
  } else {
    return value > largest;
  }
}

// The maxima of nodes first to last, and their places where those are `tracked`. Without `with_nan`,
// returns whether there was a NaN among the nodes' own values.
template <bool tracked, bool with_nan, class T, class Place>
bool max_nodes(int64_t first_node, int64_t last_node, const Matrix<T>& x, int64_t channels,
               const Rows& rows, AfterMax after, View<T> best, View<Place> places) {
  bool found = false;
  for (int64_t i = first_node; i < last_node; i++) {
    const Index first = rows.offsets[i], last = rows.offsets[i + 1];
    x.prefetch_far(i, channels);
    over_channels<T, WIDE>(channels, [&](auto block, int64_t c) {
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
          if constexpr (with_nan) {
            largest[u] = wins ? value : largest[u];
          } else {
            largest[u] = B::larger(value, largest[u]);
          }
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
        if (after.relu) value = B::larger(zero, value);  // a NaN stays one
        B::store(best.row(i) + c, u, value);
        if constexpr (tracked) B::store_integer(places.row(i) + c, u, chosen[u]);
      }
      if (!with_nan && B::bits(nan) != 0) found = true;
    });
  }
  return found;
}

// Of all nodes, by threads that share them.
template <bool tracked, class T, class Place>
void max_rows(const Matrix<T>& x, int64_t channels, const Rows& rows, AfterMax after,
              View<T> best, View<Place> places) {
  std::atomic<bool> found{false};
  const auto run = [&](auto with_nan) {
    parallel_for(0, rows.count, grain_of(channels), [&](int64_t begin, int64_t end) {
      if (max_nodes<tracked, with_nan.value>(begin, end, x, channels, rows, after, best, places)) {
        found = true;
      }
    });
  };
  run(std::false_type{});
  if (found) run(std::true_type{});
}

// Of nodes first to last, which have no edge with others.
template <bool tracked, class T, class Place>
void max_range(int64_t first, int64_t last, const Matrix<T>& x, int64_t channels,
               const Rows& rows, AfterMax after, View<T> best, View<Place> places) {
  if (max_nodes<tracked, false>(first, last, x, channels, rows, after, best, places)) {
    max_nodes<tracked, true>(first, last, x, channels, rows, after, best, places);
  }
}

// The gradient that a node's own value gets from its difference, to begin with.
template <class B>
auto own_part(const typename B::Value& grad, int64_t node, const Rows& rows, bool relative) {
  const bool differs = relative && rows.offsets[node] != rows.offsets[node + 1];
  return differs ? B::fill(0) - grad : B::fill(0);
}

template <class T, class Place>
void collect_largest(const Matrix<T>& grad, int64_t channels, View<const Place> places,
                     const Rows& rows, bool relative, View<T> grad_x) {
  parallel_for(0, rows.count, grain_of(channels), [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; j++) {
      over_channels<T, WIDE>(channels, [&](auto block, int64_t c) {
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
            const auto chosen = B::load_integer(places.row(i) + c, u);
            sum[u] += chosen == place ? B::load(grad.row(i) + c, u) : zero;
          }
        }
        for (int u = 0; u < B::count; u++) B::store(grad_x.row(j) + c, u, sum[u]);
      });
    }
  });
}

// The same for nodes first to last, which have no edge with others.
template <class T, class Place>
void hand_on_largest(int64_t first, int64_t last, const Matrix<T>& grad, int64_t channels,
                     View<const Place> places, const Rows& rows, bool relative,
                     View<T> grad_x) {
  for (int64_t j = first; j < last; j++) {
    over_channels<T, WIDE>(channels, [&](auto block, int64_t c) {
      using B = decltype(block);
      for (int u = 0; u < B::count; u++) {
        const auto own = B::load(grad.row(j) + c, u);
        B::store(grad_x.row(j) + c, u, own_part<B>(own, j, rows, relative));
      }
    });
  }
  for (int64_t i = first; i < last; i++) {
    over_channels<T, WIDE>(channels, [&](auto block, int64_t c) {
      using B = decltype(block);
      const auto zero = B::fill(0);
      typename B::Value own[B::count];
      typename B::Integer chosen[B::count];
      prefetch(places.row(i + ROWS_AHEAD) + c);
      for (int u = 0; u < B::count; u++) {
        own[u] = B::load(grad.row(i) + c, u);
        chosen[u] = B::load_integer(places.row(i) + c, u);
      }
      for (Index edge = rows.offsets[i]; edge < rows.offsets[i + 1]; edge++) {
        T* to = grad_x.row(rows.sources[edge]) + c;
        const auto place = B::fill_integer(edge - rows.offsets[i]);
        for (int u = 0; u < B::count; u++) {
          B::store(to, u, B::load(to, u) + (chosen[u] == place ? own[u] : zero));
        }
      }
    });
  }
}

}  // namespace sgas
