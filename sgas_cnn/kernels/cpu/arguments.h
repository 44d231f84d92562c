// What the operators share: tensors in order, checks, pointers.
#pragma once

#include <ATen/Dispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include <optional>
#include <tuple>
#include <vector>

namespace sgas::operators {

using at::Tensor;
using Tensors = std::vector<Tensor>;
using Maybe = std::optional<Tensor>;

inline Tensors packed(at::TensorList given) {
  Tensors all;
  for (const Tensor& tensor : given) all.push_back(tensor.contiguous());
  return all;
}

inline Maybe packed(const Maybe& given) { return given ? Maybe(given->contiguous()) : given; }

// All tensors have the dtype of the first and lie on the CPU.
inline void check_kind(const Tensor& first, at::TensorList others) {
  TORCH_CHECK(first.scalar_type() == at::kFloat || first.scalar_type() == at::kDouble,
              "sgas_cnn takes float32 and float64, not ", first.scalar_type());
  for (const Tensor& tensor : others) {
    TORCH_CHECK(tensor.scalar_type() == first.scalar_type() && tensor.is_cpu(),
                "sgas_cnn takes tensors of one dtype on the CPU, not ", tensor.scalar_type(), " on ",
                tensor.device(), " beside ", first.scalar_type());
  }
}

inline void check_images(const Tensor& images) {
  TORCH_CHECK(images.dim() == 4 && images.size(3) > 0, "images have shape ", images.sizes(),
              ", not [N, H, W, C] with a channel or more");
}

inline void check_shape(const Tensor& tensor, at::IntArrayRef shape, const char* name) {
  TORCH_CHECK(tensor.sizes() == shape, name, " has shape ", tensor.sizes(), ", not ", shape);
}

template <class T>
std::vector<T*> pointers(const Tensors& tensors) {
  std::vector<T*> all;
  for (const Tensor& tensor : tensors) all.push_back(tensor.numel() ? tensor.data_ptr<T>() : nullptr);
  return all;
}

template <class T>
std::vector<const T*> readable(const Tensors& tensors) {
  const std::vector<T*> all = pointers<T>(tensors);
  return {all.begin(), all.end()};
}

template <class T>
const T* pointer(const Maybe& tensor) {
  return tensor ? tensor->const_data_ptr<T>() : nullptr;
}

}  // namespace sgas::operators
