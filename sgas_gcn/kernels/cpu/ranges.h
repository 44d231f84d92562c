// Ranges of nodes that no edge leaves: graphs or clouds side by side. A thread that has a range to
// itself may visit each edge once and add to the rows of both its nodes; and it may go through
// several steps for a range while what they hand on is in the cache.
#pragma once


#include <algorithm>

#include <vector>

#include "rows.h"

namespace sgas {

// At least, but for the last range, so that one is worth a thread's while.
constexpr int64_t NODES_OF_A_RANGE = 256;
// Between parts of a scratch that are written and read together: at the same places of two pages a
// processor takes a read for one of what was just written.
constexpr int64_t NUMBERS_APART = 528;

// The largest of some nodes and of `reach`.
inline Index farthest(const Index* nodes, int64_t first, int64_t last, Index reach) {
  for (int64_t i = first; i < last; i++) reach = nodes[i] > reach ? nodes[i] : reach;
  return reach;
}

// Where the ranges begin, and at the end the number of nodes. No range ends before the farthest
// node that any of its own shares an edge with, so that most nodes are looked at many at a time.
inline std::vector<int64_t> closed_ranges(const Rows& rows) {
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

// Whether threads are to share ranges, since there are fewer than two for each of several.
inline bool shared_by_threads(int64_t ranges) {
  const int64_t threads = get_num_threads();
  return threads > 1 && ranges < 2 * threads;
}

// Calls alone(first, last) for each range, in parallel; where threads are to share them, calls
// together() instead, which has to come to the same.
template <class Alone, class Together>
void over_closed_ranges(const Rows& rows, Alone&& alone, Together&& together) {
  const auto starts = closed_ranges(rows);
  const int64_t ranges = static_cast<int64_t>(starts.size()) - 1;
  if (shared_by_threads(ranges)) return together();
  parallel_for(0, ranges, 1, [&](int64_t begin, int64_t end) {
    for (int64_t range = begin; range < end; range++) alone(starts[range], starts[range + 1]);
  });
}

// Nodes in groups, each with sums of its own, that follow from the graph alone: the result is the
// same for any number of threads. Where there are fewer than `most` ranges, each is of one group or
// of several of at least the `smallest` size; else a group is of whole ranges.
struct Groups {
  std::vector<int64_t> ranges, starts;  // where they begin, and the number of nodes

  Groups(const Rows& rows, int64_t most, int64_t smallest)
      : ranges(closed_ranges(rows)), starts{0} {
    const int64_t count = static_cast<int64_t>(ranges.size()) - 1;
    for (int64_t group = 1; count >= most && group <= most; group++) {
      starts.push_back(ranges[count * group / most]);
    }
    for (int64_t range = 0; count < most && range < count; range++) {
      const int64_t first = ranges[range], size = ranges[range + 1] - first;
      const int64_t parts = std::clamp<int64_t>(size / smallest, 1, most / count);
      for (int64_t part = 1; part <= parts; part++) starts.push_back(first + size * part / parts);
    }
  }

  int64_t count() const { return static_cast<int64_t>(starts.size()) - 1; }

  // Calls body(group, first row, last row) for a few rows of a range at a time.
  template <class Body>
  void by_rows(int64_t first, int64_t last, int64_t rows, Body&& body) const {
    int64_t group = std::upper_bound(starts.begin(), starts.end(), first) - starts.begin() - 1;
    while (first < last) {
      const int64_t stop = std::min({last, first + rows, starts[group + 1]});
      body(group, first, stop);
      first = stop;
      if (first == starts[group + 1]) group++;
    }
  }

  // Calls alone(scratch, first, last) for each range, in parallel by ranges or by groups, of which
  // there are fewer; `scratch` is the thread's own. Where threads are to share ranges, calls
  // together() instead.
  template <class T, class Alone, class Together>
  void over_ranges(Alone&& alone, Together&& together) const {
    if (shared_by_threads(static_cast<int64_t>(ranges.size()) - 1)) return together();
    const auto& parts = ranges.size() < starts.size() ? ranges : starts;
    parallel_for(0, static_cast<int64_t>(parts.size()) - 1, 1, [&](int64_t begin, int64_t end) {
      Numbers<T> scratch;
      auto range = std::lower_bound(ranges.begin(), ranges.end(), parts[begin]);
      for (; *range < parts[end]; range++) alone(scratch, range[0], range[1]);
      finish_streams();
    });
  }
};

}  // namespace sgas
