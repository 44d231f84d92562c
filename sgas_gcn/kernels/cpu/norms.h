// Batch norm after a ReLU in steps, for the functions that combine them; see `batch_norm.cpp`.
#pragma once

#include "columns.h"

namespace sgas {

// The parameters and running statistics of several norms side by side, and how they are used.
struct Norms {
  List<Tensor> weight, bias, running_mean, running_var;
  bool training;
  double momentum, eps;

  Tensor coefficients(const Tensor& sums, int64_t count) const;
};

#define SGAS_NORMS_SCHEMA                                                                  \
  "Tensor[] norm_weight, Tensor[] norm_bias, Tensor(a!)[] running_mean, "                  \
  "Tensor(b!)[] running_var, bool training, float momentum, float eps"
#define SGAS_NORMS_ARGUMENTS                                                               \
  List<Tensor> norm_weight, List<Tensor> norm_bias, List<Tensor> running_mean,       \
      List<Tensor> running_var, bool training, double momentum, double eps
#define SGAS_NORMS \
  Norms { norm_weight, norm_bias, running_mean, running_var, training, momentum, eps }

// Leaky ReLU of h into `out`, which may be h itself; past the caches where `streamed`.
Tensor relu_sums(const Tensor& h, double negative_slope, Tensor out, bool streamed);
Tensor relu_sums_(Tensor h, double negative_slope);
Tensor column_sums(const Tensor& grad, const Tensor& y, const std::optional<Tensor>& mask);
std::tuple<Tensor, Tensor, Tensor> norm_gradients(const Tensor& sums, const Tensor& coefficients,
                                                  const std::optional<Tensor>& scale,
                                                  int64_t count, bool training,
                                                  const Tensor& like);
void apply_factors(const Tensor& grad, const Tensor& y, const Tensor& factors,
                   double negative_slope, Tensor out);

// The sums of `[m·C]` numbers over the channels of each of m edges.
Tensor by_edge(const Tensor& sums, int64_t edges);

}  // namespace sgas
