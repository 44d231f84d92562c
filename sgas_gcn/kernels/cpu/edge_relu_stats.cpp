// The operator of `edge_relu.h`, and its parts for functions that combine it with more.


#include <vector>

#include "edge_relu.h"
#include "neighbors.h"
#include "ranges.h"

namespace sgas {
namespace {

constexpr int64_t CHUNK = 512;  // nodes of one partial sum, the same for any number of threads

// `partial` is `[chunks, 2, channels]`: Σh and Σh² of each chunk of nodes.
template <class T, class Place>
void visit_all(int64_t channels, const Matrix<T>& target, const Matrix<T>& source, const T* sign,
               const Rows& rows, T* selected, Place* places, double* partial) {
  const int64_t chunks = (rows.count + CHUNK - 1) / CHUNK;
  parallel_for(0, chunks, 1, [&](int64_t begin, int64_t end) {
    std::vector<T> sums(3 * channels);
    for (int64_t chunk = begin; chunk < end; chunk++) {
      double* own = partial + chunk * 2 * channels;
      const EdgeStats<T, Place> found{selected, places, channels, own, own + channels};
      visit_nodes(chunk * CHUNK, std::min(rows.count, (chunk + 1) * CHUNK), channels, target,
                  source, sign, rows, found, sums.data());
    }
    finish_streams();
  });
}

// The two rows of the sum over the chunks, always in the same order.
std::tuple<Tensor, Tensor> sum_of_chunks(const Tensor& partial) {
  const int64_t chunks = partial.size(0), channels = partial.size(2);
  Tensor sums = zeros({2, channels}, partial.options());
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
  SGAS_CHECK(given_target.sizes() == given_source.sizes(), "target and source differ in shape");
  const Tensor target = with_dense_rows(given_target), source = with_dense_rows(given_source);
  const Tensor sign = given_sign.to(target.scalar_type()).contiguous();
  const int64_t channels = target.size(1), chunks = (target.size(0) + CHUNK - 1) / CHUNK;
  SGAS_CHECK(sign.numel() == channels, "there have to be as many signs as channels");
  Tensor selected = empty(target.sizes(), target.options());
  Tensor places = empty(target.sizes(), target.options().dtype(place_type(degree)));
  Tensor partial = zeros({chunks, 2, channels}, target.options().dtype(kDouble));
  SGAS_FLOATING_TYPES(target.scalar_type(), "edge_relu_stats", [&] {
    const Rows rows(offsets, sources, out_offsets, out_targets, out_edges);
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
    SGAS_CHECK(each->sizes() == given_grad.sizes() && each->is_contiguous(),
                "what edge_relu_stats gave has to come back as it was");
  }
  const Tensor grad = with_dense_rows(given_grad), target = with_dense_rows(given_target),
               source = with_dense_rows(given_source);
  const auto type = target.scalar_type();
  const int64_t channels = target.size(1);
  const Tensor constant = given_constant.to(type).contiguous();
  const Tensor slope = given_slope.to(type).contiguous();
  const Tensor factor = given_factor ? given_factor->to(type).contiguous()
                                     : ones({channels}, target.options());
  Tensor out = empty({target.size(0), 2 * channels}, target.options());
  SGAS_FLOATING_TYPES(type, "edge_relu_stats_backward", [&] {
    const Rows rows(offsets, sources, out_offsets, out_targets, out_edges);
    with_places(places, [&](auto* chosen) {
      using Place = std::remove_pointer_t<decltype(chosen)>;
      const EdgesKept<scalar_t, Place> kept{Matrix<scalar_t>(grad),
                                            Matrix<scalar_t>(target),
                                            Matrix<scalar_t>(source),
                                            Matrix<scalar_t>(selected),
                                            Matrix<Place>(chosen, places.stride(0)),
                                            factor.const_data_ptr<scalar_t>(),
                                            constant.const_data_ptr<scalar_t>(),
                                            slope.const_data_ptr<scalar_t>()};
      scalar_t* to = out.mutable_data_ptr<scalar_t>();
      over_closed_ranges(
          rows,
          [&](int64_t first, int64_t last) {
            by_both_ends(first, last, channels, kept, rows, to, 2 * channels);
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
  const Tensor both = edge_gradients(grad, std::nullopt, grad_total, doubled(grad_squares), target,
                                     source, selected, places, SGAS_GRAPH);
  const int64_t channels = target.size(1);
  return {both.narrow(1, 0, channels).contiguous(), both.narrow(1, channels, channels).contiguous()};
}

}  // namespace

SGAS_OPERATORS(sgas_gcn, m) {
  m.add<&edge_relu_stats>("edge_relu_stats(Tensor target, Tensor source, Tensor sign, " SGAS_GRAPH_SCHEMA
        ") -> (Tensor selected, Tensor places, Tensor total, Tensor squares)");
  m.add<&edge_relu_stats_backward>(
      "edge_relu_stats_backward(Tensor grad_selected, Tensor grad_total, Tensor grad_squares, "
      "Tensor target, Tensor source, Tensor selected, Tensor places, " SGAS_GRAPH_SCHEMA
      ") -> (Tensor grad_target, Tensor grad_source)");
}

}  // namespace sgas
