// The sum of all that leaves a cell state, and the backward pass of its terms over their length.
// The mathematics and the conventions are those of `kernels/torch_columns.py`.


#include <cmath>
#include <vector>

#include "columns.h"
#include "lengths.h"
#include "neighbors.h"

namespace sgas {
namespace {

enum Kind : int64_t { AFFINE, MASKED, BROADCAST, LENGTH };

// One operation on one edge: weight · (slope · y + shift), where slope and shift are `[channels]`.
template <class T>
struct Piece {
  View<const T> y;
  const T* slope;
  const T* shift;   // nullptr where it is in the sum of its slot already
  T weight;
  int64_t number;   // of the inverse length; -1 where there is none
};

template <class T>
struct Slot {
  View<T> out;
  View<const T> base;  // no data: none
  std::vector<Piece<T>> pieces;
  std::vector<T> shift, masked;
};

// The pieces by slot. Slopes, and the shifts of LENGTH pieces, go into `numbers`.
template <class T>
std::vector<Slot<T>> slots_of(List<Tensor> values, const MaybeTensors& coefficients,
                              List<int64_t> kinds, List<int64_t> places,
                              List<int64_t> counts, const T* scale, int64_t num_slots,
                              int64_t channels, std::vector<T>& numbers, int64_t& lengths) {
  std::vector<Slot<T>> slots(num_slots);
  for (auto& slot : slots) slot.shift.assign(channels, 0), slot.masked.assign(channels, 0);
  numbers.assign(places.size() * 2 * channels, 1);
  int64_t piece = 0;
  for (size_t term = 0; term < values.size(); term++) {
    const Tensor& y = values[term];
    const std::optional<Tensor> own = coefficients[term];
    const int64_t kind = kinds[term], columns = own ? own->size(1) : 0;
    const double* coefs = own ? own->const_data_ptr<double>() : nullptr;
    for (int64_t number = 0; number < counts[term]; number++, piece++) {
      Slot<T>& slot = slots[places[piece]];
      const int64_t first = kind == BROADCAST ? 0 : number * channels;
      const T weight = scale == nullptr ? 1 : scale[piece];
      T *slope = &numbers[piece * 2 * channels], *shift = slope + channels;
      for (int64_t c = 0; c < channels; c++) {
        const double times = coefs == nullptr ? 1 : coefs[first + c];
        const double plus = coefs == nullptr ? 0 : coefs[columns + first + c];
        slope[c] = static_cast<T>(kind == LENGTH ? times : times * weight);
        shift[c] = static_cast<T>(plus);
        if (kind == MASKED) slot.masked[c] += static_cast<T>(plus * weight);
        if (kind != MASKED && kind != LENGTH) slot.shift[c] += static_cast<T>(plus * weight);
      }
      slot.pieces.push_back({{y.const_data_ptr<T>() + first, y.stride(0)},
                             slope,
                             kind == LENGTH ? shift : nullptr,
                             weight,
                             kind == LENGTH ? lengths++ : -1});
    }
  }
  return slots;
}

// 1 / max(|slope · y + shift|, floor).
template <class T>
T inverse_length(const Piece<T>& piece, const T* y, int64_t channels, T floor) {
  T squares = 0;
  over_channels<T>(channels, [&](auto block, int64_t c) {
    using B = decltype(block);
    typename B::Value sum = {};
    for (int u = 0; u < B::count; u++) {
      const auto z = B::load(piece.slope + c, u) * B::load(y + c, u) + B::load(piece.shift + c, u);
      sum += z * z;
    }
    squares += B::total(sum);
  });
  return 1 / std::max(std::sqrt(squares), floor);
}

template <class T>
void mix_row(int64_t row, const std::vector<Slot<T>>& slots, int64_t channels, T counted, T floor,
             T* inverse) {
  for (const auto& slot : slots) {
    T* out = slot.out.row(row);
    const T* base = slot.base.data == nullptr ? nullptr : slot.base.row(row);
    T by[32];
    const size_t num_pieces = slot.pieces.size();
    for (size_t p = 0; p < num_pieces; p++) {
      const auto& piece = slot.pieces[p];
      by[p] = 1;
      if (piece.number >= 0) {
        const T found = inverse_length(piece, piece.y.row(row), channels, floor);
        inverse[piece.number] = found;
        by[p] = found * piece.weight;
      }
    }
    over_channels<T>(channels, [&](auto block, int64_t c) {
      using B = decltype(block);
      typename B::Value sum[B::count];
      for (int u = 0; u < B::count; u++) {
        sum[u] = B::load(slot.shift.data() + c, u) +
                 B::fill(counted) * B::load(slot.masked.data() + c, u);
        if (base != nullptr) sum[u] += B::load(base + c, u);
      }
      for (size_t p = 0; p < num_pieces; p++) {
        const auto& piece = slot.pieces[p];
        const T* y = piece.y.row(row) + c;
        B::prefetch(piece.y.row(row + ROWS_AHEAD) + c);
        for (int u = 0; u < B::count; u++) {
          const auto product = B::load(piece.slope + c, u) * B::load(y, u);
          sum[u] += piece.number < 0
                        ? product
                        : B::fill(by[p]) * (product + B::load(piece.shift + c, u));
        }
      }
      for (int u = 0; u < B::count; u++) B::store(out + c, u, sum[u]);
    });
  }
}

std::tuple<std::vector<Tensor>, Tensor> mixture(List<Tensor> values, const MaybeTensors& coefficients,
                                   List<int64_t> kinds, List<int64_t> places,
                                   List<int64_t> counts, const std::optional<Tensor>& scale,
                                   const std::optional<Tensor>& mask, const MaybeTensors& bases,
                                   int64_t channels, double floor) {
  const int64_t num_rows = values[0].size(0), num_slots = static_cast<int64_t>(bases.size());
  int64_t num_lengths = 0;
  for (size_t term = 0; term < values.size(); term++) {
    check_dense_rows(values[term], "each of values");
    SGAS_CHECK(values[term].size(0) == num_rows, "values differ in their rows");
    if (kinds[term] == LENGTH) num_lengths += counts[term];
  }
  SGAS_CHECK(places.size() <= 32 * static_cast<size_t>(num_slots), "too many pieces for a slot");
  std::vector<Tensor> outs;
  for (int64_t slot = 0; slot < num_slots; slot++) {
    outs.push_back(empty({num_rows, channels}, values[0].options()));
    const std::optional<Tensor> base = bases[slot];
    if (!base) continue;
    check_dense_rows(*base, "each of bases");
    SGAS_CHECK(base->sizes() == outs[slot].sizes(), "a base has to be of the sum's shape");
  }
  Tensor inverse = empty({num_rows, num_lengths}, values[0].options());
  SGAS_FLOATING_TYPES(inverse.scalar_type(), "mixture", [&] {
    std::vector<scalar_t> numbers;
    int64_t lengths = 0;
    const Tensor weights = scale ? scale->contiguous() : Tensor();
    const scalar_t* by = scale ? weights.const_data_ptr<scalar_t>() : nullptr;
    const scalar_t* counted = mask ? mask->const_data_ptr<scalar_t>() : nullptr;
    auto slots = slots_of<scalar_t>(values, coefficients, kinds, places, counts, by,
                                          num_slots, channels, numbers, lengths);
    for (const auto& slot : slots) SGAS_CHECK(slot.pieces.size() <= 32, "too many pieces");
    for (int64_t slot = 0; slot < num_slots; slot++) {
      slots[slot].out = writing<scalar_t>(outs[slot]);
      const std::optional<Tensor> base = bases[slot];
      slots[slot].base = base ? reading<scalar_t>(*base) : View<const scalar_t>{nullptr, 0};
    }
    scalar_t* found = inverse.mutable_data_ptr<scalar_t>();
    const int64_t work = static_cast<int64_t>(places.size()) * channels;
    parallel_for(0, num_rows, grain_of(work), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; row++) {
        mix_row<scalar_t>(row, slots, channels, counted == nullptr ? 0 : counted[row],
                          static_cast<scalar_t>(floor), found + row * num_lengths);
      }
    });
  });
  return {outs, inverse};
}

}  // namespace

Tensor length_backward(const Tensor& grad, const Tensor& y,
                       const std::optional<Tensor>& coefficients, const Tensor& inverse,
                       const std::optional<Tensor>& scale, double floor,
                       std::optional<Tensor> out) {
  check_dense_rows(grad, "grad");
  check_dense_rows(y, "y");
  check_dense_rows(inverse, "inverse");
  if (out) check_dense_rows(*out, "out");
  const int64_t edges = inverse.size(1), channels = y.size(1) / std::max<int64_t>(edges, 1);
  const int64_t num_rows = y.size(0), columns = y.size(1);
  SGAS_CHECK(grad.sizes() == y.sizes() && (!out || out->sizes() == y.sizes()),
              "grad, y and out differ in shape");
  const int64_t chunks = (num_rows + ROWS_OF_A_CHUNK - 1) / ROWS_OF_A_CHUNK;
  Tensor partial = zeros({chunks, edges}, y.options().dtype(kDouble));
  const Tensor typed = coefficients ? coefficients->narrow(0, 0, 2).to(y.scalar_type()) : Tensor();
  const Tensor weights = scale ? scale->contiguous() : Tensor();
  SGAS_FLOATING_TYPES(y.scalar_type(), "length_backward", [&] {
    const auto g = reading<scalar_t>(grad), values = reading<scalar_t>(y);
    const auto lengths = reading<scalar_t>(inverse);
    const View<scalar_t> to = out ? writing<scalar_t>(*out) : View<scalar_t>{nullptr, 0};
    const scalar_t* slope = coefficients ? typed.const_data_ptr<scalar_t>() : nullptr;
    const scalar_t* by = scale ? weights.const_data_ptr<scalar_t>() : nullptr;
    double* sums = partial.mutable_data_ptr<double>();
    const int64_t grain = std::max<int64_t>(1, grain_of(columns) / ROWS_OF_A_CHUNK);
    parallel_for(0, chunks, grain, [&](int64_t begin, int64_t end) {
      for (int64_t chunk = begin; chunk < end; chunk++) {
        const int64_t stop = std::min(num_rows, (chunk + 1) * ROWS_OF_A_CHUNK);
        for (int64_t row = chunk * ROWS_OF_A_CHUNK; row < stop; row++) {
          for (int64_t e = 0; e < edges; e++) {
            const int64_t c = e * channels;
            const Edge<scalar_t> edge{
                {g.data + c, g.stride},
                {values.data + c, values.stride},
                {to.data == nullptr ? nullptr : to.data + c, to.stride},
                slope == nullptr ? nullptr : slope + c,
                slope == nullptr ? nullptr : slope + columns + c,
                by == nullptr ? scalar_t(1) : by[e]};
            sums[chunk * edges + e] += length_row<scalar_t>(
                edge, row, channels, lengths.row(row)[e], static_cast<scalar_t>(floor));
          }
        }
      }
    });
  });
  return partial.sum(0);
}

namespace {

// Some rows of one edge: returns Σ G x, and adds weight · G to the gradient of x.
template <class T>
double skip_rows(View<const T> grad, View<const T> x, View<T> grad_x, T weight, int64_t channels,
                 int64_t first, int64_t last) {
  double along = 0;
  for (int64_t row = first; row < last; row++) {
    const T *g = grad.row(row), *own = x.row(row);
    over_channels<T>(channels, [&](auto block, int64_t c) {
      using B = decltype(block);
      typename B::Value sum = {};
      for (int u = 0; u < B::count; u++) {
        const auto value = B::load(g + c, u);
        sum += value * B::load(own + c, u);
        if (grad_x.data == nullptr) continue;
        T* to = grad_x.row(row) + c;
        B::store(to, u, B::load(to, u) + B::fill(weight) * value);
      }
      along += B::total(sum);
    });
  }
  return along;
}

Tensor skip_backward(const Tensor& grad, const Tensor& x, const std::optional<Tensor>& scale,
                     std::optional<Tensor> grad_x) {
  check_dense_rows(grad, "grad");
  check_dense_rows(x, "x");
  if (grad_x) check_dense_rows(*grad_x, "grad_x");
  const int64_t num_rows = x.size(0), channels = x.size(1);
  const int64_t edges = scale ? scale->numel() : grad.size(1) / std::max<int64_t>(channels, 1);
  SGAS_CHECK(grad.size(0) == num_rows && grad.size(1) == edges * channels,
              "grad ", grad.sizes(), " does not fit ", edges, " edges of x ", x.sizes());
  const int64_t chunks = (num_rows + ROWS_OF_A_CHUNK - 1) / ROWS_OF_A_CHUNK;
  Tensor partial = zeros({chunks, edges}, x.options().dtype(kDouble));
  const Tensor weights = scale ? scale->contiguous() : Tensor();
  SGAS_FLOATING_TYPES(x.scalar_type(), "skip_backward", [&] {
    const auto g = reading<scalar_t>(grad), own = reading<scalar_t>(x);
    const View<scalar_t> to = grad_x ? writing<scalar_t>(*grad_x) : View<scalar_t>{nullptr, 0};
    const scalar_t* by = scale ? weights.const_data_ptr<scalar_t>() : nullptr;
    double* sums = partial.mutable_data_ptr<double>();
    parallel_for(0, chunks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t chunk = begin; chunk < end; chunk++) {
        const int64_t last = std::min(num_rows, (chunk + 1) * ROWS_OF_A_CHUNK);
        for (int64_t e = 0; e < edges; e++) {
          sums[chunk * edges + e] = skip_rows<scalar_t>(
              {g.data + e * channels, g.stride}, own, to, by == nullptr ? scalar_t(1) : by[e],
              channels, chunk * ROWS_OF_A_CHUNK, last);
        }
      }
    });
  });
  return partial.sum(0);
}

}  // namespace

SGAS_OPERATORS(sgas_gcn, m) {
  m.add<&mixture>(
      "mixture(Tensor[] values, Tensor?[] coefficients, int[] kinds, int[] slots, int[] counts, "
      "Tensor? scale, Tensor? mask, Tensor?[] bases, int channels, float floor) -> (Tensor[] outs, "
      "Tensor inverse)");
  m.add<&skip_backward>("skip_backward(Tensor grad, Tensor x, Tensor? scale, Tensor(a!)? grad_x) -> Tensor");
  m.add<&length_backward>(
      "length_backward(Tensor grad, Tensor y, Tensor? coefficients, Tensor inverse, "
      "Tensor? scale, float floor, Tensor(a!)? out) -> Tensor");
}

}  // namespace sgas
