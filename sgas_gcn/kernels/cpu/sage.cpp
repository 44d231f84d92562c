// GraphSAGE on several edges: R(W [x, M]) with M = R(max over neighbours of P x_j [− P x_i]).
//
// The backward pass goes from the gradient of the result over its length to those of x, W and P.
// Nodes go in ranges that no edge leaves, and one after another the edges of the cell go through all
// steps for a range, so that what they hand on is in the cache. The mathematics and the conventions
// are those of `kernels/messages.py`.


#include <limits>

#include "lengths.h"
#include "linear_backward.h"
#include "neighbor_max.h"
#include "neighbors.h"
#include "ranges.h"

namespace sgas {
namespace {

// Some edges' columns of W: those that multiply x (0) or M (1), of one edge.
Tensor part(const Tensor& weight, int64_t which, int64_t edge) {
  const int64_t channels = weight.size(1) / 2;
  return weight.narrow(0, edge * channels, channels).narrow(1, which * channels, channels);
}

void check_weights(const Tensor& x, const Tensor& pre, const Tensor& weight) {
  SGAS_CHECK(x.dim() == 2 && pre.dim() == 2 && weight.dim() == 2 && pre.size(1) == x.size(1) &&
                  weight.size(1) == 2 * x.size(1) && weight.size(0) == pre.size(0) &&
                  x.size(1) > 0 && pre.size(0) % x.size(1) == 0,
              "pre ", pre.sizes(), " and weight ", weight.sizes(), " do not fit ", x.sizes());
}

// Columns of one edge of a cell among those of all.
template <class V>
V columns_of(V all, int64_t edge, int64_t channels) {
  return {all.data + edge * channels, all.stride};
}

// What comes out of one edge.
template <class T, class Place>
struct Forward {
  View<const T> x;
  View<T> message, y;
  View<Place> places;
  AfterMax after;
  const Rows& rows;
  int64_t channels;
  bool streamed;
  Padded<T> pre, own, other;

  // P x of some rows.
  void project(int64_t first, int64_t last, View<T> to) const {
    for (int64_t row = first; row < last; row += ROWS_OF_A_CHUNK) {
      multiply<T, AS_IT_IS>({{x, &pre}}, row, std::min(last, row + ROWS_OF_A_CHUNK), to);
    }
  }

  // R(W [x, M]) of some rows.
  void combine(int64_t first, int64_t last) const {
    const std::vector<Factor<T>> factors{{x, &own}, {{message.data, message.stride}, &other}};
    const auto run = TUNED<T> && streamed ? multiply<T, WITH_RELU, TUNED<T>> : multiply<T, WITH_RELU>;
    for (int64_t row = first; row < last; row += ROWS_OF_A_CHUNK) {
      run(factors, row, std::min(last, row + ROWS_OF_A_CHUNK), y);
    }
  }

  template <bool tracked>
  void range(Numbers<T>& scratch, int64_t first, int64_t last) const {
    scratch.resize((last - first) * channels);
    const View<T> projected{scratch.data() - first * channels, channels};
    project(first, last, projected);
    max_range<tracked>(first, last, Matrix<T>(projected.data, channels, true), channels, rows, after,
                       message, places);
    combine(first, last);
  }

  // All rows, by threads that share them.
  template <bool tracked>
  void all(const Tensor& like) const {
    const Tensor projected = empty({rows.count, channels}, like.options());
    const auto to = writing<T>(projected);
    const auto in_chunks = [&](auto&& body) { over_chunks(rows.count, body); };
    in_chunks([&](int64_t first, int64_t last) { project(first, last, to); });
    max_rows<tracked>(Matrix<T>(projected), channels, rows, after, message, places);
    in_chunks([&](int64_t first, int64_t last) { combine(first, last); });
  }
};

template <bool tracked, class T, class Place>
void run_forward(const std::vector<Forward<T, Place>>& edges, const Rows& rows,
                 const Tensor& like) {
  Groups(rows, std::numeric_limits<int64_t>::max(), ROWS_OF_A_CHUNK)
      .over_ranges<T>(
          [&](Numbers<T>& scratch, int64_t first, int64_t last) {
            for (const auto& edge : edges) {
              edge.template range<tracked>(scratch, first, last);
            }
          },
          [&] {
            for (const auto& edge : edges) edge.template all<tracked>(like);
          });
}

std::tuple<Tensor, Tensor, Tensor> sage(const Tensor& given, const Tensor& pre,
                                        const Tensor& weight, SGAS_GRAPH_ARGUMENTS, bool relative,
                                        bool tracked) {
  check_graph(given.size(0), SGAS_GRAPH);
  check_weights(given, pre, weight);
  const Tensor x = with_dense_rows(given);
  const int64_t columns = pre.size(0), channels = weight.size(1) / 2, edges = columns / channels;
  Tensor y = empty({x.size(0), columns}, x.options());
  Tensor message = empty(y.sizes(), y.options());
  const auto options = y.options().dtype(tracked ? place_type(degree) : kByte);
  Tensor places = tracked ? empty(y.sizes(), options) : empty({0}, options);
  const bool streamed = static_cast<int64_t>(y.nbytes()) >= STREAMED_BYTES;
  SGAS_FLOATING_TYPES(x.scalar_type(), "sage", [&] {
    const Rows rows(offsets, sources, out_offsets, out_targets, out_edges);
    with_places(places, [&](auto* chosen) {
      using Place = std::remove_pointer_t<decltype(chosen)>;
      std::vector<Forward<scalar_t, Place>> all;
      for (int64_t edge = 0; edge < edges; edge++) {
        const View<Place> own_places{tracked ? chosen + edge * channels : chosen, columns};
        all.push_back({reading<scalar_t>(x), columns_of(writing<scalar_t>(message), edge, channels),
                       columns_of(writing<scalar_t>(y), edge, channels), own_places,
                       AfterMax{relative, true}, rows, channels, streamed,
                       Padded<scalar_t>(pre.narrow(0, edge * channels, channels).t()),
                       Padded<scalar_t>(part(weight, 0, edge).t()),
                       Padded<scalar_t>(part(weight, 1, edge).t())});
      }
      if constexpr (std::is_same_v<Place, uint8_t>) {
        if (!tracked) return run_forward<false>(all, rows, x);
      }
      run_forward<true>(all, rows, x);
    });
  });
  return {y, message, places};
}

// What goes back through one edge.
template <class T, class Place>
struct Backward {
  View<const T> grad, y, inverse, message;
  View<const Place> places;
  const Rows& rows;
  bool relative;
  T scale, floor;
  int64_t channels;
  Linear<T> own, other, pre;  // of x and M, and what M is the maximum of
  WeightSums<T> of_own, of_other, of_pre;
  std::vector<double> of_scale;  // by group

  // Through R(W [x, M]) for some rows, and on to what M was before its R. `buffer` holds
  // ROWS_IN_CACHE rows.
  void combined(int64_t group, int64_t first, int64_t last, T* buffer, View<T> grad_message) {
    const int64_t stride = own.stride;
    const Edge<T> edge{grad, y, {buffer - first * stride, stride}, nullptr, nullptr, scale};
    for (int64_t row = first; row < last; row++) {
      of_scale[group] += length_row<T>(edge, row, channels, *inverse.row(row), floor);
    }
    send_back(own, of_own, group, first, last, buffer);
    of_other.add(other, group, first, last, buffer);
    multiply<T, AS_IT_IS>({{{buffer - first * stride, stride}, &other.maps[0]}}, first, last,
                          grad_message);
    for (int64_t row = first; row < last; row++) {
      over_channels<T>(channels, [&](auto block, int64_t c) {
        using B = decltype(block);
        B::prefetch(message.row(row + ROWS_AHEAD) + c);
        const auto zero = B::fill(0);
        T* to = grad_message.row(row) + c;
        for (int u = 0; u < B::count; u++) {
          B::store(to, u, B::load(message.row(row) + c, u) > zero ? B::load(to, u) : zero);
        }
      });
    }
  }

  void range(const Groups& groups, Numbers<T>& scratch, int64_t first, int64_t last) {
    const int64_t stride = own.stride, size = (last - first) * stride + NUMBERS_APART;
    scratch.resize(2 * size + ROWS_IN_CACHE * stride);
    const View<T> grad_message{scratch.data() - first * stride, stride};
    const View<T> grad_projected{grad_message.data + size, stride};
    T* buffer = scratch.data() + 2 * size;
    groups.by_rows(first, last, ROWS_IN_CACHE, [&](int64_t group, int64_t row, int64_t stop) {
      combined(group, row, stop, buffer, grad_message);
    });
    hand_on_largest(first, last, Matrix<T>(grad_message.data, stride), channels, places, rows,
                    relative, grad_projected);
    groups.by_rows(first, last, ROWS_IN_CACHE, [&](int64_t group, int64_t row, int64_t stop) {
      send_back(pre, of_pre, group, row, stop, grad_projected.row(row));
    });
  }

  // All rows, by threads that share them.
  void all(const Groups& groups, const Tensor& like) {
    const int64_t stride = own.stride;
    const Tensor message_tensor = empty({rows.count, stride}, like.options());
    const Tensor projected_tensor = empty({rows.count, stride}, like.options());
    const auto grad_message = writing<T>(message_tensor);
    const auto grad_projected = writing<T>(projected_tensor);
    const auto in_groups = [&](auto&& body) {
      parallel_for(0, groups.count(), 1, [&](int64_t begin, int64_t end) {
        Numbers<T> buffer(ROWS_IN_CACHE * stride);
        groups.by_rows(groups.starts[begin], groups.starts[end], ROWS_IN_CACHE,
                       [&](int64_t group, int64_t row, int64_t stop) {
                         body(group, row, stop, buffer.data());
                       });
      });
    };
    in_groups([&](int64_t group, int64_t row, int64_t stop, T* buffer) {
      combined(group, row, stop, buffer, grad_message);
    });
    collect_largest(Matrix<T>(message_tensor), channels, places, rows, relative, grad_projected);
    in_groups([&](int64_t group, int64_t row, int64_t stop, T*) {
      send_back(pre, of_pre, group, row, stop, grad_projected.row(row));
    });
  }
};

std::tuple<Tensor, Tensor, Tensor> sage_backward(
    const Tensor& given_grad, const Tensor& y, const Tensor& given_inverse,
    const std::optional<Tensor>& given_scale, double floor, const Tensor& given,
    const Tensor& message, const Tensor& places, const Tensor& pre, const Tensor& weight,
    SGAS_GRAPH_ARGUMENTS, bool relative, std::optional<Tensor> grad_x, bool of_weights) {
  check_graph(given.size(0), SGAS_GRAPH);
  check_weights(given, pre, weight);
  if (grad_x) check_dense_rows(*grad_x, "grad_x");
  const Tensor x = with_dense_rows(given), grad = with_dense_rows(given_grad);
  const Tensor inverse = given_inverse.contiguous();
  const std::optional<Tensor> scale =
      given_scale ? std::optional(given_scale->contiguous()) : std::nullopt;
  const int64_t columns = weight.size(0), channels = weight.size(1) / 2, edges = columns / channels;
  SGAS_CHECK(places.sizes() == y.sizes() && message.sizes() == y.sizes() &&
                  grad.sizes() == y.sizes() && y.is_contiguous() && places.is_contiguous() &&
                  message.is_contiguous() && y.size(0) == x.size(0) && y.size(1) == columns &&
                  inverse.numel() == x.size(0) * edges && (!scale || scale->numel() == edges) &&
                  (!grad_x || grad_x->sizes() == x.sizes()),
              "what sage gave has to come back as it was");
  const std::vector<Tensor> inputs{x}, grads{grad_x.value_or(x)};
  const List<Tensor> wanted = grad_x ? List<Tensor>(grads) : List<Tensor>();
  Tensor grad_weight = zeros({of_weights ? columns : 0, 2 * channels}, weight.options());
  Tensor grad_pre = zeros({of_weights ? columns : 0, channels}, weight.options());
  Tensor of_scale = zeros({edges}, y.options().dtype(kDouble));
  SGAS_FLOATING_TYPES(y.scalar_type(), "sage_backward", [&] {
    const Rows rows(offsets, sources, out_offsets, out_targets, out_edges);
    const Groups groups(rows, most_groups_of_ranges(channels * channels), ROWS_IN_CACHE);
    const int64_t count = groups.count();
    with_places(places, [&](auto* chosen) {
      using Place = std::remove_pointer_t<decltype(chosen)>;
      std::vector<Backward<scalar_t, Place>> all;
      for (int64_t edge = 0; edge < edges; edge++) {
        const auto of = [&](const Tensor& matrix) {
          return columns_of(reading<scalar_t>(matrix), edge, channels);
        };
        const std::vector<Tensor> messages{message.narrow(1, edge * channels, channels)};
        Linear<scalar_t> own(inputs, part(weight, 0, edge), wanted);
        Linear<scalar_t> other(messages, part(weight, 1, edge), {});
        Linear<scalar_t> before(inputs, pre.narrow(0, edge * channels, channels), wanted);
        WeightSums<scalar_t> of_own(own, count, of_weights), of_other(other, count, of_weights),
            of_pre(before, count, of_weights);
        all.push_back({of(grad), of(y), columns_of(reading<scalar_t>(inverse), edge, 1), of(message),
                       View<const Place>{chosen + edge * channels, columns}, rows, relative,
                       scale ? scale->const_data_ptr<scalar_t>()[edge] : scalar_t(1),
                       static_cast<scalar_t>(floor), channels, std::move(own), std::move(other),
                       std::move(before), std::move(of_own), std::move(of_other),
                       std::move(of_pre), std::vector<double>(count)});
      }
      groups.over_ranges<scalar_t>(
          [&](Numbers<scalar_t>& scratch, int64_t first, int64_t last) {
            for (auto& edge : all) edge.range(groups, scratch, first, last);
          },
          [&] {
            for (auto& edge : all) edge.all(groups, x);
          });
      for (int64_t edge = 0; edge < edges; edge++) {
        auto& one = all[edge];
        for (const double found : one.of_scale) of_scale.mutable_data_ptr<double>()[edge] += found;
        if (!of_weights) continue;
        one.of_own.write(part(grad_weight, 0, edge));
        one.of_other.write(part(grad_weight, 1, edge));
        one.of_pre.write(grad_pre.narrow(0, edge * channels, channels));
      }
    });
  });
  return {of_scale, grad_pre, grad_weight};
}

}  // namespace

SGAS_OPERATORS(sgas_gcn, m) {
  m.add<&sage>("sage(Tensor x, Tensor pre, Tensor weight, " SGAS_GRAPH_SCHEMA
        ", bool relative, bool tracked) -> (Tensor y, Tensor message, Tensor places)");
  m.add<&sage_backward>(
      "sage_backward(Tensor grad, Tensor y, Tensor inverse, Tensor? scale, float floor, Tensor x, "
      "Tensor message, Tensor places, Tensor pre, Tensor weight, " SGAS_GRAPH_SCHEMA
      ", bool relative, Tensor(a!)? grad_x, bool of_weights) -> (Tensor of_scale, "
      "Tensor grad_pre, Tensor grad_weight)");
}

}  // namespace sgas
