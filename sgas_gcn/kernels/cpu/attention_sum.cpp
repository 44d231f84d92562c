// Attention over the neighbours of each node: for each of m heads, the values of the sources
// weighted by the softmax over them of leaky ReLU(target_score_i + source_score_j).
//
// Alone the weights, one number for each edge and head, are kept. Backward, with w the weights and
// d_e = <grad_i, value_j> for edge e from j to i: the score's gradient is w_e (d_e − Σ w d) times
// the slope of the leaky ReLU, and a value's Σ w_e grad_i over the edges that leave it. The values
// may stand for values times factors by column (and plus a constant, which changes no gradient).


#include <vector>

#include "lanes.h"
#include "ranges.h"

namespace sgas {
namespace {

template <class T>
struct Scores {
  const T* target;
  const T* source;
  int64_t heads;
  T slopes[2];  // of the leaky ReLU, where negative and where positive; a choice of them would be
                // a branch, and half of those are guessed wrong

  T before(int64_t i, int64_t j, int64_t head) const {
    return target[i * heads + head] + source[j * heads + head];
  }
  T slope(T score) const { return slopes[score > 0]; }
};

// Each edge's score less the largest of its node, so that no exponential overflows.
template <class T>
void centred_scores(const Scores<T>& scores, const Rows& rows, T* out) {
  const int64_t heads = scores.heads;
  parallel_for(0, rows.count, grain_of(16 * heads), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      for (int64_t head = 0; head < heads; head++) {
        T largest = -std::numeric_limits<T>::infinity();
        for (Index edge = rows.offsets[i]; edge < rows.offsets[i + 1]; edge++) {
          T score = scores.before(i, rows.sources[edge], head);
          score *= scores.slope(score);
          out[edge * heads + head] = score;
          largest = score > largest ? score : largest;
        }
        for (Index edge = rows.offsets[i]; edge < rows.offsets[i + 1]; edge++) {
          out[edge * heads + head] -= largest;
        }
      }
    }
  });
}

// Divides the exponentials of each node by their sum, and sums the values by them.
template <class T>
void weighted_sums(const Matrix<T>& values, int64_t heads, int64_t channels,
                   const Rows& rows, T* weights, T* out) {
  parallel_for(0, rows.count, grain_of(heads * channels), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const Index first = rows.offsets[i], last = rows.offsets[i + 1];
      values.prefetch_far(i, heads * channels);
      for (int64_t head = 0; head < heads; head++) {
        T total = 0;
        for (Index edge = first; edge < last; edge++) total += weights[edge * heads + head];
        for (Index edge = first; edge < last; edge++) weights[edge * heads + head] /= total;
        over_channels<T, WIDE>(channels, [&](auto block, int64_t c) {
          using B = decltype(block);
          typename B::Value sum[B::count] = {};
          for (Index edge = first; edge < last; edge++) {
            const T* value = values.row(rows.sources[edge]) + head * channels + c;
            const auto weight = B::fill(weights[edge * heads + head]);
            for (int u = 0; u < B::count; u++) sum[u] += weight * B::load(value, u);
          }
          T* to = out + (i * heads + head) * channels + c;
          for (int u = 0; u < B::count; u++) B::store(to, u, sum[u]);
        });
      }
    }
  });
}

template <class T>
T dot(const T* a, const T* b, int64_t channels) {
  T sum = 0;
  over_channels<T, WIDE>(channels, [&](auto block, int64_t c) {
    using B = decltype(block);
    typename B::Value products = {};
    for (int u = 0; u < B::count; u++) products += B::load(a + c, u) * B::load(b + c, u);
    sum += B::total(products);
  });
  return sum;
}

// A row of one head times factors; without them the row itself.
template <class T>
const T* scaled(const T* row, const T* factors, int64_t channels, std::vector<T>& buffer) {
  if (factors == nullptr) return row;
  over_channels<T>(channels, [&](auto block, int64_t c) {
    using B = decltype(block);
    for (int u = 0; u < B::count; u++) {
      B::store(buffer.data() + c, u, B::load(row + c, u) * B::load(factors + c, u));
    }
  });
  return buffer.data();
}

// The gradients of each edge's score, `[E, m]`, and their sums by target.
template <class T>
void score_gradients(const T* grad, int64_t grad_stride, const Matrix<T>& values,
                     const T* factors, int64_t channels, const Scores<T>& scores, const T* weights,
                     const Rows& rows, T* by_edge, T* by_target) {
  const int64_t heads = scores.heads;
  parallel_for(0, rows.count, grain_of(heads * channels), [&](int64_t begin, int64_t end) {
    std::vector<T> buffer(channels);
    for (int64_t i = begin; i < end; i++) {
      values.prefetch_far(i, heads * channels);
      for (int64_t head = 0; head < heads; head++) {
        const T* row = scaled(grad + i * grad_stride + head * channels,
                              factors == nullptr ? nullptr : factors + head * channels, channels,
                              buffer);
        T mean = 0, sum = 0;
        for (Index edge = rows.offsets[i]; edge < rows.offsets[i + 1]; edge++) {
          const T* value = values.row(rows.sources[edge]) + head * channels;
          const T product = dot(row, value, channels);
          by_edge[edge * heads + head] = product;
          mean += weights[edge * heads + head] * product;
        }
        for (Index edge = rows.offsets[i]; edge < rows.offsets[i + 1]; edge++) {
          const int64_t at = edge * heads + head;
          T score = weights[at] * (by_edge[at] - mean);
          score *= scores.slope(scores.before(i, rows.sources[edge], head));
          by_edge[at] = score;
          sum += score;
        }
        by_target[i * heads + head] = sum;
      }
    }
  });
}

// What goes back to the values and the scores of the sources.
template <class T>
struct ToSources {
  const T* grad;
  int64_t grad_stride;
  int64_t heads, channels;
  const T* weights;
  const T* by_edge;    // the gradients of the scores, `[E, m]`, and by target `[N, m]`
  const T* by_target;
  const T* vectors;    // `[2, m·C]`, that made the scores of the values; nullptr: not to go on
  T* grad_values;
  T* by_source;

  // Adds to a value what its scores hand on.
  void finish(int64_t j, int64_t head) const {
    if (vectors == nullptr) return;
    T* to = grad_values + (j * heads + head) * channels;
    over_channels<T>(channels, [&](auto block, int64_t c) {
      using B = decltype(block);
      const auto one = B::fill(by_target[j * heads + head]);
      const auto two = B::fill(by_source[j * heads + head]);
      const T *first = vectors + head * channels + c, *second = first + heads * channels;
      for (int u = 0; u < B::count; u++) {
        auto value = B::load(to + c, u);
        value += one * B::load(first, u);
        value += two * B::load(second, u);
        B::store(to + c, u, value);
      }
    });
  }
};

// Each source sums over the edges that leave it.
template <class T>
void collect(const ToSources<T>& to, const Rows& rows) {
  const int64_t heads = to.heads, channels = to.channels;
  parallel_for(0, rows.count, grain_of(heads * channels), [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; j++) {
      const Index first = rows.out_offsets[j], last = rows.out_offsets[j + 1];
      for (int64_t head = 0; head < heads; head++) {
        T score = 0;
        for (Index at = first; at < last; at++) {
          score += to.by_edge[rows.out_edges[at] * heads + head];
        }
        to.by_source[j * heads + head] = score;
        over_channels<T, WIDE>(channels, [&](auto block, int64_t c) {
          using B = decltype(block);
          typename B::Value sum[B::count] = {};
          for (Index at = first; at < last; at++) {
            const T* row = to.grad + rows.out_targets[at] * to.grad_stride + head * channels + c;
            const auto weight = B::fill(to.weights[rows.out_edges[at] * heads + head]);
            for (int u = 0; u < B::count; u++) {
              sum[u] = B::multiply_add(weight, B::load(row, u), sum[u]);
            }
          }
          T* own = to.grad_values + (j * heads + head) * channels + c;
          for (int u = 0; u < B::count; u++) B::store(own, u, sum[u]);
        });
        to.finish(j, head);
      }
    }
  });
}

// The same for nodes first to last, which have no edge with others: each hands its gradient on.
template <class T>
void hand_on(int64_t first, int64_t last, const ToSources<T>& to, const Rows& rows) {
  const int64_t heads = to.heads, channels = to.channels, columns = heads * channels;
  std::fill(to.grad_values + first * columns, to.grad_values + last * columns, T(0));
  std::fill(to.by_source + first * heads, to.by_source + last * heads, T(0));
  for (int64_t i = first; i < last; i++) {
    for (int64_t head = 0; head < heads; head++) {
      for (Index edge = rows.offsets[i]; edge < rows.offsets[i + 1]; edge++) {
        to.by_source[rows.sources[edge] * heads + head] += to.by_edge[edge * heads + head];
      }
      over_channels<T, WIDE>(channels, [&](auto block, int64_t c) {
        using B = decltype(block);
        typename B::Value own[B::count];
        const T* row = to.grad + i * to.grad_stride + head * channels + c;
        for (int u = 0; u < B::count; u++) own[u] = B::load(row, u);
        for (Index edge = rows.offsets[i]; edge < rows.offsets[i + 1]; edge++) {
          T* sum = to.grad_values + rows.sources[edge] * columns + head * channels + c;
          const auto weight = B::fill(to.weights[edge * heads + head]);
          for (int u = 0; u < B::count; u++) {
            B::store(sum, u, B::multiply_add(weight, own[u], B::load(sum, u)));
          }
        }
      });
    }
  }
  for (int64_t j = first; j < last; j++) {
    for (int64_t head = 0; head < heads; head++) to.finish(j, head);
  }
}

std::tuple<Tensor, Tensor> attention_sum(const Tensor& given, const Tensor& target_score,
                                         const Tensor& source_score, SGAS_GRAPH_ARGUMENTS,
                                         double slope) {
  check_graph(given.size(0), offsets, sources, out_offsets, out_targets, out_edges, degree);
  const Tensor values = with_dense_rows(given);
  const Tensor target = target_score.contiguous(), source = source_score.contiguous();
  const int64_t heads = values.size(1), channels = values.size(2);
  SGAS_CHECK(target.numel() == values.size(0) * heads && source.sizes() == target.sizes(),
              "scores have to be [nodes, heads]");
  Tensor weights = empty({sources.numel(), heads}, values.options());
  Tensor out = empty(values.sizes(), values.options());
  SGAS_FLOATING_TYPES(values.scalar_type(), "attention_sum", [&] {
    const Rows rows(offsets, sources, out_offsets, out_targets, out_edges);
    const Scores<scalar_t> scores{target.const_data_ptr<scalar_t>(),
                                  source.const_data_ptr<scalar_t>(), heads,
                                  {static_cast<scalar_t>(slope), 1}};
    centred_scores(scores, rows, weights.mutable_data_ptr<scalar_t>());
    take_exponentials(weights);
    weighted_sums(Matrix<scalar_t>(values), heads, channels, rows,
                  weights.mutable_data_ptr<scalar_t>(), out.mutable_data_ptr<scalar_t>());
  });
  return {out, weights};
}

std::tuple<Tensor, Tensor, Tensor> attention_sum_backward(
    const Tensor& given_grad, const Tensor& given, const Tensor& target_score,
    const Tensor& source_score, const Tensor& weights, SGAS_GRAPH_ARGUMENTS, double slope,
    const std::optional<Tensor>& factors, const std::optional<Tensor>& vectors) {
  check_graph(given.size(0), offsets, sources, out_offsets, out_targets, out_edges, degree);
  const Tensor grad = with_dense_rows(given_grad), values = with_dense_rows(given);
  const Tensor target = target_score.contiguous(), source = source_score.contiguous();
  const int64_t heads = values.size(1), channels = values.size(2);
  SGAS_CHECK(grad.sizes() == values.sizes() && weights.is_contiguous() &&
                  weights.numel() == sources.numel() * heads &&
                  (!factors || (factors->is_contiguous() && factors->numel() == heads * channels)) &&
                  (!vectors ||
                   (vectors->is_contiguous() && vectors->numel() == 2 * heads * channels)),
              "what attention_sum gave has to come back as it was");
  Tensor by_edge = empty(weights.sizes(), weights.options());
  Tensor grad_values = empty(values.sizes(), values.options());
  Tensor by_target = empty(target.sizes(), values.options());
  Tensor by_source = empty(target.sizes(), values.options());
  SGAS_FLOATING_TYPES(values.scalar_type(), "attention_sum_backward", [&] {
    const Rows rows(offsets, sources, out_offsets, out_targets, out_edges);
    const Scores<scalar_t> scores{target.const_data_ptr<scalar_t>(),
                                  source.const_data_ptr<scalar_t>(), heads,
                                  {static_cast<scalar_t>(slope), 1}};
    const auto* g = grad.const_data_ptr<scalar_t>();
    const auto* w = weights.const_data_ptr<scalar_t>();
    auto* of_edges = by_edge.mutable_data_ptr<scalar_t>();
    auto* of_targets = by_target.mutable_data_ptr<scalar_t>();
    const auto* by = factors ? factors->const_data_ptr<scalar_t>() : nullptr;
    const auto* made_by = vectors ? vectors->const_data_ptr<scalar_t>() : nullptr;
    score_gradients(g, grad.stride(0), Matrix<scalar_t>(values), by, channels,
                    scores, w, rows, of_edges, of_targets);
    const ToSources<scalar_t> to{g, grad.stride(0), heads, channels, w, of_edges, of_targets, made_by,
                                 grad_values.mutable_data_ptr<scalar_t>(),
                                 by_source.mutable_data_ptr<scalar_t>()};
    over_closed_ranges(
        rows, [&](int64_t first, int64_t last) { hand_on(first, last, to, rows); },
        [&] { collect(to, rows); });
  });
  return {grad_values, by_target, by_source};
}

}  // namespace

SGAS_OPERATORS(sgas_gcn, m) {
  m.add<&attention_sum>("attention_sum(Tensor values, Tensor target_score, Tensor source_score, " SGAS_GRAPH_SCHEMA
        ", float slope) -> (Tensor out, Tensor weights)");
  m.add<&attention_sum_backward>(
      "attention_sum_backward(Tensor grad, Tensor values, Tensor target_score, "
      "Tensor source_score, Tensor weights, " SGAS_GRAPH_SCHEMA
      ", float slope, Tensor? factors, Tensor? vectors) -> (Tensor grad_values, Tensor grad_target, Tensor grad_source)");
}

}  // namespace sgas
