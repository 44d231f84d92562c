// EdgeConv on several edges: max over neighbours of BN(R(A x_i + B x_j)), W = [A + B, B] given.
//
// A x and B x are computed again in the backward pass. Where products go by registers, the columns
// go in slices and the nodes in ranges that no edge leaves, and what is made for a slice of a range
// is used while it is in the cache. Else a library's product for all columns is written as a whole.
// The mathematics and the conventions are those of `kernels/messages.py`.


#include <limits>
#include <vector>

#include "edge_relu.h"
#include "linear_backward.h"
#include "neighbors.h"
#include "norms.h"
#include "ranges.h"

namespace sgas {
namespace {

constexpr int64_t COLUMNS_OF_A_SLICE = 32;  // for a cloud of 1024 points a quarter of a megabyte
constexpr int64_t NODES_OF_A_SUM = 512;     // at least, where there are as many in a range

// A and B one below the other: `[2D, C]`.
Tensor maps_of(const Tensor& given) {
  const Tensor weight = with_dense_rows(given);
  const int64_t rows = weight.size(0), width = weight.size(1) / 2;
  Tensor maps = empty({2 * rows, width}, weight.options());
  SGAS_FLOATING_TYPES(weight.scalar_type(), "edge_conv", [&] {
    const auto from = reading<scalar_t>(weight);
    const auto to = writing<scalar_t>(maps);
    for (int64_t r = 0; r < rows; r++) {
      for (int64_t c = 0; c < width; c++) {
        to.row(r)[c] = from.row(r)[c] - from.row(r)[width + c];
        to.row(rows + r)[c] = from.row(r)[width + c];
      }
    }
  });
  return maps;
}

// -1 where a norm's weight is negative, else 1.
Tensor signs_of(List<Tensor> norm_weight, const Tensor& like) {
  int64_t columns = 0;
  for (const Tensor& weight : norm_weight) columns += weight.numel();
  Tensor signs = empty({columns}, like.options());
  SGAS_FLOATING_TYPES(like.scalar_type(), "edge_conv", [&] {
    scalar_t* to = signs.mutable_data_ptr<scalar_t>();
    for (const Tensor& given : norm_weight) {
      const Tensor weight = given.contiguous();
      const scalar_t* from = weight.const_data_ptr<scalar_t>();
      for (int64_t i = 0; i < weight.numel(); i++) *to++ = from[i] < 0 ? -1 : 1;
    }
  });
  return signs;
}

// Some columns of A x and B x, and what goes back through them.
template <class T>
struct Slice {
  int64_t column, width;
  Linear<T> linear;
  Padded<T> map;

  Slice(int64_t column, List<Tensor> x, const Tensor& maps, List<Tensor> grad_x)
      : column(column), width(maps.size(0) / 2), linear(x, maps, grad_x), map(maps.t()) {}

  // [A x, B x] of some rows.
  void project(int64_t first, int64_t last, View<T> to) const {
    const std::vector<Factor<T>> factors{{linear.inputs[0], &map}};
    for (int64_t row = first; row < last; row += ROWS_OF_A_CHUNK) {
      multiply<T, AS_IT_IS>(factors, row, std::min(last, row + ROWS_OF_A_CHUNK), to);
    }
  }

  // The same for all rows, by threads that share them.
  Tensor projected(const Tensor& x) const {
    Tensor out = empty({x.size(0), 2 * width}, x.options());
    multiply_all<T, AS_IT_IS>({{linear.inputs[0], &map}}, x.size(0), writing<T>(out));
    return out;
  }

  Matrix<T> target(const T* projected, int64_t stride) const { return {projected, stride, true}; }
  Matrix<T> source(const T* projected, int64_t stride) const {
    return {projected + width, stride, true};
  }
};

template <class T>
std::vector<Slice<T>> slices_of(const Tensor& x, const Tensor& weight,
                                const std::optional<Tensor>& grad_x) {
  const std::vector<Tensor> inputs{x}, grads{grad_x.value_or(x)};
  std::vector<Slice<T>> slices;
  for (int64_t column = 0; column < weight.size(0); column += COLUMNS_OF_A_SLICE) {
    const int64_t width = std::min(COLUMNS_OF_A_SLICE, weight.size(0) - column);
    slices.emplace_back(column, inputs, maps_of(weight.narrow(0, column, width)),
                        grad_x ? List<Tensor>(grads) : List<Tensor>());
  }
  return slices;
}

// The extrema and their places, and over all edges Σh and Σh², `[2, D]`.
template <class T, class Place>
Tensor stats_by_slices(const Tensor& x, const Tensor& weight, const T* sign,
                       const Rows& rows, T* y, Place* places) {
  const auto slices = slices_of<T>(x, weight, std::nullopt);
  const int64_t columns = weight.size(0);
  const Groups groups(rows, std::numeric_limits<int64_t>::max(), NODES_OF_A_SUM);
  Tensor partial = zeros({groups.count(), 2, columns}, x.options().dtype(kDouble));
  double* sums = partial.mutable_data_ptr<double>();
  const auto visit = [&](const Slice<T>& slice, int64_t group, int64_t first, int64_t last,
                         const T* projected, int64_t stride) {
    double* own = sums + group * 2 * columns + slice.column;
    const EdgeStats<T, Place> found{y + slice.column, places + slice.column, columns, own,
                                    own + columns};
    T scratch[3 * COLUMNS_OF_A_SLICE];
    visit_nodes(first, last, slice.width, slice.target(projected, stride),
                slice.source(projected, stride), sign + slice.column, rows, found, scratch);
  };
  groups.over_ranges<T>(
      [&](Numbers<T>& scratch, int64_t first, int64_t last) {
        scratch.resize((last - first) * 2 * COLUMNS_OF_A_SLICE);
        for (const auto& slice : slices) {
          const View<T> projected{scratch.data() - first * 2 * slice.width, 2 * slice.width};
          slice.project(first, last, projected);
          groups.by_rows(first, last, last - first, [&](int64_t group, int64_t row, int64_t stop) {
            visit(slice, group, row, stop, projected.data, projected.stride);
          });
        }
      },
      [&] {
        for (const auto& slice : slices) {
          const Tensor projected = slice.projected(x);
          const T* from = projected.const_data_ptr<T>();
          parallel_for(0, groups.count(), 1, [&](int64_t begin, int64_t end) {
            for (int64_t group = begin; group < end; group++) {
              visit(slice, group, groups.starts[group], groups.starts[group + 1], from,
                    2 * slice.width);
            }
            finish_streams();
          });
        }
      });
  return partial.sum(0);
}

// What the way back reads; `factors` as of `norm_gradients`.
template <class T, class Place>
struct Given {
  View<const T> grad, y, factors;
  const Place* places;
  int64_t columns;

  EdgesKept<T, Place> kept(const Slice<T>& slice, const T* projected, int64_t stride) const {
    const int64_t c = slice.column;
    return {Matrix<T>(grad.data + c, grad.stride),
            slice.target(projected, stride),
            slice.source(projected, stride),
            Matrix<T>(y.data + c, y.stride),
            Matrix<Place>(places + c, columns),
            factors.row(0) + c,
            factors.row(1) + c,
            factors.row(2) + c};
  }
};

// The gradient `[2w, C]` of each slice's [A, B], none if not wanted; that of x is added to
// `grad_x`.
template <class T, class Place>
std::vector<Tensor> back_by_slices(const Tensor& x, const Tensor& weight,
                                   const Given<T, Place>& given, const Rows& rows,
                                   const std::optional<Tensor>& grad_x, bool of_weight) {
  const auto slices = slices_of<T>(x, weight, grad_x);
  const int64_t widest = 2 * std::min(COLUMNS_OF_A_SLICE, given.columns);
  const Groups groups(rows, most_groups_of_ranges(widest * x.size(1)), ROWS_IN_CACHE);
  std::vector<WeightSums<T>> sums;
  for (const auto& slice : slices) sums.emplace_back(slice.linear, groups.count(), of_weight);
  groups.over_ranges<T>(
      [&](Numbers<T>& scratch, int64_t first, int64_t last) {
        const int64_t size = (last - first) * slices[0].linear.stride + NUMBERS_APART;
        scratch.resize(2 * size);
        for (size_t i = 0; i < slices.size(); i++) {
          const auto& slice = slices[i];
          const int64_t stride = slice.linear.stride;
          T* projected = scratch.data() - first * stride;
          T* grad = projected + size;
          slice.project(first, last, {projected, stride});
          by_both_ends(first, last, slice.width, given.kept(slice, projected, stride), rows, grad,
                       stride);
          groups.by_rows(first, last, ROWS_IN_CACHE, [&](int64_t group, int64_t row, int64_t stop) {
            send_back(slice.linear, sums[i], group, row, stop, grad + row * stride);
          });
        }
      },
      [&] {
        for (size_t i = 0; i < slices.size(); i++) {
          const auto& slice = slices[i];
          const int64_t stride = slice.linear.stride;
          const Tensor projected = slice.projected(x);
          Tensor both = empty({x.size(0), stride}, x.options());
          T* grad = both.mutable_data_ptr<T>();
          const auto kept = given.kept(slice, projected.const_data_ptr<T>(), projected.stride(0));
          by_target(slice.width, kept, rows, grad, stride);
          by_source(slice.width, kept, rows, grad + slice.width, stride);
          parallel_for(0, groups.count(), 1, [&](int64_t begin, int64_t end) {
            groups.by_rows(groups.starts[begin], groups.starts[end], ROWS_IN_CACHE,
                           [&](int64_t group, int64_t row, int64_t stop) {
                             send_back(slice.linear, sums[i], group, row, stop, grad + row * stride);
                           });
          });
        }
      });
  std::vector<Tensor> found;
  for (size_t i = 0; of_weight && i < slices.size(); i++) {
    found.push_back(zeros({2 * slices[i].width, x.size(1)}, x.options()));
    sums[i].write(found.back());
  }
  return found;
}

// The gradient of W from those of [A, B], slice by slice.
void write_weight(const std::vector<Tensor>& of_maps, const Tensor& grad_weight) {
  SGAS_FLOATING_TYPES(grad_weight.scalar_type(), "edge_conv_backward", [&] {
    const int64_t width = grad_weight.size(1) / 2;
    scalar_t* to = grad_weight.mutable_data_ptr<scalar_t>();
    for (const Tensor& each : of_maps) {
      const auto from = reading<scalar_t>(each);
      const int64_t rows = each.size(0) / 2;
      for (int64_t r = 0; r < rows; r++, to += 2 * width) {
        for (int64_t c = 0; c < width; c++) {
          to[c] = from.row(r)[c];
          to[width + c] = from.row(rows + r)[c] - from.row(r)[c];
        }
      }
    }
  });
}

std::tuple<Tensor, Tensor, Tensor> edge_conv(const Tensor& given, const Tensor& weight,
                                             SGAS_GRAPH_ARGUMENTS, SGAS_NORMS_ARGUMENTS) {
  const Tensor x = with_dense_rows(given);
  const int64_t columns = weight.size(0);
  const Tensor sign = signs_of(norm_weight, x);
  Tensor y, places, sums;
  if (by_registers(weight, x.size(0))) {
    check_graph(x.size(0), SGAS_GRAPH);
    SGAS_CHECK(sign.numel() == columns && weight.size(1) == 2 * x.size(1), "weight ",
                weight.sizes(), " and ", sign.numel(), " norms do not fit ", x.sizes());
    y = empty({x.size(0), columns}, x.options());
    places = empty(y.sizes(), y.options().dtype(place_type(degree)));
    SGAS_FLOATING_TYPES(x.scalar_type(), "edge_conv", [&] {
      const Rows rows(offsets, sources, out_offsets, out_targets, out_edges);
      with_places(places, [&](auto* chosen) {
        sums = stats_by_slices(x, weight, sign.const_data_ptr<scalar_t>(), rows,
                               y.mutable_data_ptr<scalar_t>(), chosen);
      });
    });
  } else {
    Tensor total, squares;
    const Tensor projected = product_of(x, maps_of(weight).t());
    std::tie(y, places, total, squares) =
        edge_relu_stats(projected.narrow(1, 0, columns), projected.narrow(1, columns, columns),
                        sign, SGAS_GRAPH);
    sums = empty({2, columns}, total.options());
    sums[0].copy_(total);
    sums[1].copy_(squares);
  }
  return {y, places, SGAS_NORMS.coefficients(sums, sources.numel())};
}

std::tuple<Tensor, Tensor, Tensor> edge_conv_backward(
    const Tensor& given_grad, const Tensor& y, const Tensor& coefficients,
    const std::optional<Tensor>& scale, const std::optional<Tensor>& mask, int64_t edges,
    bool training, const Tensor& given, const Tensor& places, const Tensor& weight,
    SGAS_GRAPH_ARGUMENTS, std::optional<Tensor> grad_x, bool of_weight) {
  const Tensor x = with_dense_rows(given), grad = with_dense_rows(given_grad);
  const int64_t columns = weight.size(0);
  const auto [factors, affine, of_scale] = norm_gradients(
      column_sums(grad, y, mask), coefficients, scale, sources.numel(), training, y);
  Tensor grad_weight = empty({of_weight ? columns : 0, weight.size(1)}, weight.options());
  if (!grad_x && !of_weight) return {affine, by_edge(of_scale, edges), grad_weight};
  std::vector<Tensor> of_maps;
  if (by_registers(weight, x.size(0))) {
    check_graph(x.size(0), SGAS_GRAPH);
    if (grad_x) check_dense_rows(*grad_x, "grad_x");
    SGAS_CHECK(y.sizes() == grad.sizes() && places.sizes() == grad.sizes() &&
                    y.is_contiguous() && places.is_contiguous() && y.size(1) == columns &&
                    y.size(0) == x.size(0) && weight.size(1) == 2 * x.size(1) &&
                    (!grad_x || grad_x->sizes() == x.sizes()),
                "what edge_conv gave has to come back as it was");
    const Tensor typed = factors.to(y.scalar_type()).contiguous();
    SGAS_FLOATING_TYPES(x.scalar_type(), "edge_conv_backward", [&] {
      const Rows rows(offsets, sources, out_offsets, out_targets, out_edges);
      with_places(places, [&](auto* chosen) {
        using Place = std::remove_pointer_t<decltype(chosen)>;
        const Given<scalar_t, Place> kept{reading<scalar_t>(grad), reading<scalar_t>(y),
                                          reading<scalar_t>(typed), chosen, columns};
        of_maps = back_by_slices(x, weight, kept, rows, grad_x, of_weight);
      });
    });
  } else {
    const Tensor maps = maps_of(weight), projected = product_of(x, maps.t());
    const Tensor both = edge_gradients(grad, factors[0], factors[1], factors[2],
                                       projected.narrow(1, 0, columns),
                                       projected.narrow(1, columns, columns), y, places, SGAS_GRAPH);
    if (grad_x) product(*grad_x, both, maps, true);
    if (of_weight) of_maps.push_back(product_of(both.t(), x));
  }
  write_weight(of_maps, grad_weight);
  return {affine, by_edge(of_scale, edges), grad_weight};
}

}  // namespace

SGAS_OPERATORS(sgas_gcn, m) {
  m.add<&edge_conv>("edge_conv(Tensor x, Tensor weight, " SGAS_GRAPH_SCHEMA ", " SGAS_NORMS_SCHEMA
        ") -> (Tensor y, Tensor places, Tensor coefficients)");
  m.add<&edge_conv_backward>(
      "edge_conv_backward(Tensor grad, Tensor y, Tensor coefficients, Tensor? scale, Tensor? mask, "
      "int edges, bool training, Tensor x, Tensor places, Tensor weight, " SGAS_GRAPH_SCHEMA
      ", Tensor(a!)? grad_x, bool of_weight) -> (Tensor affine, Tensor of_scale, "
      "Tensor grad_weight)");
}

}  // namespace sgas
