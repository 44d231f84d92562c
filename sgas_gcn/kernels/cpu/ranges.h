// Ranges of nodes that no edge leaves: graphs or clouds side by side. A thread that has a range to
// itself may visit each edge once and add to the rows of both its nodes.
#pragma once

#include <ATen/Parallel.h>

#include <vector>

#include "rows.h"

namespace sgas {

constexpr int64_t NODES_OF_A_RANGE = 256;  // at least, so that a range is worth a thread's while

// The largest of some nodes and of `reach`.
template <class Index>
Index farthest(const Index* nodes, int64_t first, int64_t last, Index reach) {
  for (int64_t i = first; i < last; i++) reach = nodes[i] > reach ? nodes[i] : reach;
  return reach;
}

// Where the ranges begin, and at the end the number of nodes. No range ends before the farthest
// node that any of its own shares an edge with, so that most nodes are looked at many at a time.
template <class Index>
std::vector<int64_t> closed_ranges(const Rows<Index>& rows) {
  std::vector<int64_t> starts{0};
  Index reach = 0;  // the last node that any of nodes 0 to i shares an edge with
  const auto look_at = [&](int64_t first, int64_t last) {
    reach = farthest(rows.sources, rows.offsets[first], rows.offsets[last], reach);
    reach = farthest(rows.out_targets, rows.out_offsets[first], rows.out_offsets[last], reach);
  };
  for (int64_t i = 0; i < rows.count;) {
    const int64_t next = std::min(std::max<int64_t>(reach, i + 1), rows.count);
    look_at(i, next);  // nodes before `reach`: no range ends there
    i = next;
    if (reach < i && i - starts.back() >= NODES_OF_A_RANGE) starts.push_back(i);
  }
  if (starts.back() < rows.count) starts.push_back(rows.count);
  return starts;
}

// Calls alone(first, last) for each range, in parallel; where there are fewer than two for
// each of several threads, calls together() instead, which has to come to the same.
template <class Index, class Alone, class Together>
void over_closed_ranges(const Rows<Index>& rows, Alone&& alone, Together&& together) {
  const auto starts = closed_ranges(rows);
  const int64_t ranges = static_cast<int64_t>(starts.size()) - 1, threads = at::get_num_threads();
  if (threads > 1 && ranges < 2 * threads) return together();
  at::parallel_for(0, ranges, 1, [&](int64_t begin, int64_t end) {
    for (int64_t range = begin; range < end; range++) alone(starts[range], starts[range + 1]);
  });
}

}  // namespace sgas
