// What the operators share: tensors in order, checks, pointers.
#pragma once


#include "tensor.h"

namespace sgas::operators {

using sgas::Bools;
using sgas::empty;
using sgas::kDouble;
using sgas::kFloat;
using sgas::List;
using sgas::ones;
using sgas::Tensor;
using sgas::zeros;
using Tensors = std::vector<Tensor>;
using Maybe = std::optional<Tensor>;

inline Tensors packed(List<Tensor> given) {
  Tensors all;
  for (const Tensor& tensor : given) all.push_back(tensor.contiguous());
  return all;
}

inline Maybe packed(const Maybe& given) { return given ? Maybe(given->contiguous()) : given; }

// All tensors have the dtype of the first and lie on the CPU.
inline void check_kind(const Tensor& first, List<Tensor> others) {
  SGAS_CHECK(first.scalar_type() == kFloat || first.scalar_type() == kDouble,
              "sgas_cnn takes float32 and float64, not ", first.scalar_type());
  for (const Tensor& tensor : others) {
    SGAS_CHECK(tensor.scalar_type() == first.scalar_type() && tensor.is_cpu(),
               "sgas_cnn takes tensors of one dtype on the CPU, not ", tensor.scalar_type(), " beside ",
               first.scalar_type());
  }
}

inline void check_images(const Tensor& images) {
  SGAS_CHECK(images.dim() == 4 && images.size(3) > 0, "images have shape ", images.sizes(),
              ", not [N, H, W, C] with a channel or more");
}

inline void check_shape(const Tensor& tensor, List<int64_t> shape, const char* name) {
  SGAS_CHECK(tensor.sizes() == shape, name, " has shape ", tensor.sizes(), ", not ", shape);
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
