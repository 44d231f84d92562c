// Work shared among torch's threads, in an order that depends on their number alone.
#pragma once


#include "tensor.h"

namespace sgas {

inline long num_workers(long images) {
  return std::max(1L, std::min<long>(images, get_num_threads()));
}

// Calls work(worker, first, last) for an equal share of the images each. What a worker sums up it
// keeps apart, and the sums are added in the workers' order: results are the same in every run.
template <class Work>
void share_images(long images, long workers, Work work) {
  parallel_for(0, workers, 1, [&](long begin, long end) {
    for (long w = begin; w < end; ++w) work(w, w * images / workers, (w + 1) * images / workers);
  });
}

}  // namespace sgas
