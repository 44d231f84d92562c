// Batch norms and the weights of edges as one factor and one constant for each channel, with their
// gradients, and the running statistics. The mathematics stands in torch_norms.py.
//
// Operators and arithmetic in one: rows [C] are short, and what they cost is the number of calls.
#include <cmath>

#include "arguments.h"

namespace {

using namespace sgas::operators;
using Numbers = List<int64_t>;

// Rows of norms as the operators are given them, checked.
struct Rows {
  Rows(const Tensor& like, const Maybe& gamma, const Maybe& beta, const Maybe& weights, Numbers places,
       Numbers slot_of, int64_t slots)
      : gamma(packed(gamma)), beta(packed(beta)), weights(packed(weights)), places(places),
        slot_of(slot_of), num(slot_of.size()), channels(like.size(1)) {
    SGAS_CHECK(static_cast<int64_t>(places.size()) == num, "there are ", places.size(), " places for ", num, " rows");
    for (const Maybe& affine : {this->gamma, this->beta})
      if (affine) check_shape(*affine, {num, channels}, "weights or biases of norms");
    const int64_t count = weights ? weights->numel() : 0;
    for (int64_t i = 0; i < num; ++i) {
      SGAS_CHECK(places[i] < count, "a place is ", places[i], " of ", count);
      SGAS_CHECK(slot_of[i] >= 0 && slot_of[i] < slots, "a slot is ", slot_of[i], " of ", slots);
    }
    for (const Maybe& other : {this->gamma, this->beta, this->weights})
      if (other) check_kind(like, {*other});
  }

  // The weight of row i; without a place it is 1, or 0 where nothing reads the row.
  template <class T>
  T weight(int64_t i) const {
    return places[i] == -1 ? T(1) : places[i] < 0 ? T(0) : weights->const_data_ptr<T>()[places[i]];
  }

  const Maybe gamma, beta, weights;
  const Numbers places, slot_of;
  const int64_t num, channels;
};

template <class T>
const T* row(const Maybe& rows, int64_t i, int64_t channels) {
  return rows ? rows->const_data_ptr<T>() + i * channels : nullptr;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> fold(const Tensor& mean, const Tensor& var, Numbers row_of,
                                                const Maybe& gamma, const Maybe& beta, const Maybe& weights,
                                                Numbers places, Numbers slot_of, int64_t slots, double eps) {
  const Rows rows(mean, gamma, beta, weights, places, slot_of, slots);
  const int64_t num = rows.num, channels = rows.channels, known = mean.size(0);
  const Tensor means = mean.contiguous(), vars = var.contiguous();
  check_kind(mean, {var});
  check_shape(var, mean.sizes(), "variances");
  SGAS_CHECK(static_cast<int64_t>(row_of.size()) == num, "there are ", row_of.size(), " rows of moments for ", num);
  for (int64_t r : row_of) SGAS_CHECK(r < known, "a row is ", r, " of ", known);
  Tensor factors = empty({num, channels}, mean.options()), bias = zeros({slots, channels}, mean.options());
  Tensor centres = zeros({num, channels}, mean.options()), inverse = ones({num, channels}, mean.options());
  SGAS_FLOATING_TYPES(mean.scalar_type(), "fold", [&] {
    for (int64_t i = 0; i < num; ++i) {
      const scalar_t weight = rows.weight<scalar_t>(i);
      const scalar_t *g = row<scalar_t>(rows.gamma, i, channels), *b = row<scalar_t>(rows.beta, i, channels);
      scalar_t* factor = factors.data_ptr<scalar_t>() + i * channels;
      scalar_t* constant = bias.data_ptr<scalar_t>() + slot_of[i] * channels;
      scalar_t* centre = centres.data_ptr<scalar_t>() + i * channels;
      scalar_t* over = inverse.data_ptr<scalar_t>() + i * channels;
      if (row_of[i] >= 0) {
        const scalar_t* m = means.const_data_ptr<scalar_t>() + row_of[i] * channels;
        const scalar_t* v = vars.const_data_ptr<scalar_t>() + row_of[i] * channels;
        for (int64_t c = 0; c < channels; ++c) {
          centre[c] = m[c];
          over[c] = 1 / std::sqrt(v[c] + static_cast<scalar_t>(eps));
        }
      }
      for (int64_t c = 0; c < channels; ++c) {
        factor[c] = over[c] * weight * (g ? g[c] : scalar_t(1));
        constant[c] += (b ? b[c] * weight : scalar_t(0)) - factor[c] * centre[c];
      }
    }
  });
  return {factors, bias, centres, inverse};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> unfold(
    const Tensor& factors, const Tensor& centres, const Tensor& inverse, Numbers row_of, const Maybe& gamma,
    const Maybe& beta, const Maybe& weights, Numbers places, Numbers slot_of, const Tensor& crossed,
    const Tensor& sums, int64_t pixels) {
  const Rows rows(factors, gamma, beta, weights, places, slot_of, sums.size(0));
  const int64_t num = rows.num, channels = rows.channels;
  const Tensors given = packed(List<Tensor>({factors, centres, inverse, crossed}));
  const Tensor sum = sums.contiguous();
  check_kind(factors, given);
  check_kind(factors, {sum});
  for (const Tensor& tensor : given) check_shape(tensor, {num, channels}, "what was folded");
  check_shape(sum, {sums.size(0), channels}, "sums");
  SGAS_CHECK(static_cast<int64_t>(row_of.size()) == num, "there are ", row_of.size(), " rows of moments for ", num);
  const auto options = factors.options();
  Tensor to_weights = zeros({weights ? weights->numel() : 0}, options), slopes = zeros({num, channels}, options);
  Tensor constants = zeros({num, channels}, options), to_gamma = empty({num, channels}, options), to_beta = empty({num, channels}, options);
  SGAS_FLOATING_TYPES(factors.scalar_type(), "unfold", [&] {
    for (int64_t i = 0; i < num; ++i) {
      const scalar_t *factor = given[0].const_data_ptr<scalar_t>() + i * channels, *centre = given[1].const_data_ptr<scalar_t>() + i * channels;
      const scalar_t *over = given[2].const_data_ptr<scalar_t>() + i * channels, *cross = given[3].const_data_ptr<scalar_t>() + i * channels;
      const scalar_t* total = sum.const_data_ptr<scalar_t>() + slot_of[i] * channels;
      const scalar_t *g = row<scalar_t>(rows.gamma, i, channels), *b = row<scalar_t>(rows.beta, i, channels);
      scalar_t *dg = to_gamma.data_ptr<scalar_t>() + i * channels, *db = to_beta.data_ptr<scalar_t>() + i * channels;
      scalar_t *slope = slopes.data_ptr<scalar_t>() + i * channels, *constant = constants.data_ptr<scalar_t>() + i * channels;
      const scalar_t weight = rows.weight<scalar_t>(i);
      double to_weight = 0;
      for (int64_t c = 0; c < channels; ++c) {
        const scalar_t normalised = cross[c] * over[c];
        to_weight += normalised * (g ? g[c] : scalar_t(1)) + (b ? b[c] * total[c] : scalar_t(0));
        dg[c] = normalised * weight;
        db[c] = total[c] * weight;
        if (pixels == 0 || row_of[i] < 0) continue;
        const scalar_t per_pixel = -factor[c] / static_cast<scalar_t>(pixels);
        slope[c] = per_pixel * over[c] * normalised;
        constant[c] = per_pixel * total[c] - slope[c] * centre[c];
      }
      if (places[i] >= 0) to_weights.data_ptr<scalar_t>()[places[i]] += static_cast<scalar_t>(to_weight);
    }
  });
  return {to_weights, to_gamma, to_beta, slopes, constants};
}

void follow(List<Tensor> running_means, List<Tensor> running_vars, const Tensor& mean, const Tensor& var,
            Numbers row_of, Numbers first_channels, Numbers last_channels, double unbiased, double momentum) {
  const std::size_t num = running_means.size();
  SGAS_CHECK(running_vars.size() == num && row_of.size() == num && first_channels.size() == num && last_channels.size() == num,
              "there are ", num, " running means, ", running_vars.size(), " variances, ", row_of.size(), " rows");
  const Tensor means = mean.contiguous(), vars = var.contiguous();
  const int64_t known = mean.size(0), channels = mean.size(1);
  check_kind(mean, {var});
  check_kind(mean, running_means);
  check_kind(mean, running_vars);
  check_shape(var, mean.sizes(), "variances");
  SGAS_FLOATING_TYPES(mean.scalar_type(), "follow", [&] {
    for (std::size_t i = 0; i < num; ++i) {
      const int64_t first = first_channels[i], last = last_channels[i];
      SGAS_CHECK(row_of[i] >= 0 && row_of[i] < known && 0 <= first && last <= channels, "row ", row_of[i], ", channels ", first, " to ", last);
      for (int which = 0; which < 2; ++which) {
        const Tensor& to = which ? running_vars[i] : running_means[i];
        check_shape(to, {channels}, "a running moment");
        SGAS_CHECK(to.is_contiguous(), "running moments have to be contiguous");
        const scalar_t* found = (which ? vars : means).const_data_ptr<scalar_t>() + row_of[i] * channels;
        const scalar_t factor = static_cast<scalar_t>(which ? unbiased : 1), rate = static_cast<scalar_t>(momentum);
        scalar_t* running = to.data_ptr<scalar_t>();
        for (int64_t c = first; c < last; ++c) running[c] += rate * (factor * found[c] - running[c]);
        sgas::was_changed(to);
      }
    }
  });
}

}  // namespace

SGAS_OPERATORS(sgas_cnn, m) {
  m.add<&fold>(
      "fold(Tensor mean, Tensor var, int[] row_of, Tensor? gamma, Tensor? beta, Tensor? weights, int[] places, "
      "int[] slot_of, int slots, float eps) -> (Tensor, Tensor, Tensor, Tensor)");
  m.add<&unfold>(
      "unfold(Tensor factors, Tensor centres, Tensor inverse, int[] row_of, Tensor? gamma, Tensor? beta, "
      "Tensor? weights, int[] places, int[] slot_of, Tensor crossed, Tensor sums, int pixels) "
      "-> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.add<&follow>(
      "follow(Tensor(a!)[] running_means, Tensor(b!)[] running_vars, Tensor mean, Tensor var, int[] row_of, "
      "int[] first_channels, int[] last_channels, float unbiased, float momentum) -> ()");
}

