// What the kernels take: images [N][H][W][C] in memory, channels last. operators.cpp fills these
// and checks them; each kernel stands in the file of its name.
#pragma once

#include <vector>

namespace sgas {

// One depthwise convolution, of R(input) or, where there is a matrix, of R(input matrix' + shift).
struct Taps {
  int kernel;
  int dilation;
  int offset;  // of the first pixel that is read, beyond the centre
};

struct Size {
  long images, height, width, channels;
  int stride;
  long out_height() const { return (height + stride - 1) / stride; }
  long out_width() const { return (width + stride - 1) / stride; }
};

template <class T>
struct Depthwise {
  Size size;
  std::vector<Taps> taps;
  std::vector<const T*> inputs;   // one for all, or one each
  std::vector<const T*> weights;  // [C][K][K]; null: a tap of one
  const T* matrices = nullptr;    // [planes][C out][C in]
  const T* shifts = nullptr;      // [planes][C]
  bool shared() const { return matrices == nullptr; }
};

// Moments of a plane over all its pixels: mean [C], covariance [C][C] (biased).
template <class T>
struct Moments {
  T* mean;
  T* covariance;
};

template <class T>
void depthwise(const Depthwise<T>& given, const std::vector<T*>& planes, Moments<T> moments);

// A gradient that reaches a plane through a matrix [C out][C in].
template <class T>
struct Pulled {
  const T* gradient;
  const T* matrix;
  int plane;
};

template <class T>
struct DepthwiseBackward {
  std::vector<Pulled<T>> pulled;  // ordered by plane
  std::vector<const T*> planes;   // the outputs of depthwise; read where there is `slopes`
  const T* slopes = nullptr;      // [planes][C][C] symmetric
  const T* constants = nullptr;   // [planes][C]
  const T* centres = nullptr;     // [planes][C], subtracted from the inputs in `crossed`
  const T* added = nullptr;       // joins the gradient of a shared input
};

template <class T>
struct DepthwiseGradients {
  std::vector<T*> inputs;   // like the inputs; empty where not wanted
  std::vector<T*> weights;  // null where not wanted
  T* crossed = nullptr;     // [planes][C out][C in]
  T* sums = nullptr;        // [planes][C]
};

template <class T>
void depthwise_backward(const Depthwise<T>& given, const DepthwiseBackward<T>& back,
                        const DepthwiseGradients<T>& wanted);

// A matrix [rows][C in] that gives the channels from first_row on.
template <class T>
struct Rows {
  const T* data;
  long first_row, rows;
};

// out[slot] = before[slot] + bias[slot] + sum of coefficients * linear + sum of plane matrix'.
template <class T>
struct Mixture {
  long images, pixels, channels;
  int slots;
  std::vector<const T*> linear;    // [images * pixels][C] each
  const T* coefficients;           // [slots][linear][C]
  const T* bias = nullptr;         // [slots][C]
  std::vector<const T*> before;    // by slot, null: zeros
  std::vector<const T*> planes;    // by branch; branches are ordered by slot
  std::vector<int> slot_of;        // by branch
  std::vector<Rows<T>> matrices;   // by branch
};

template <class T>
void mixture(const Mixture<T>& given, const std::vector<T*>& outs);

template <class T>
struct MixtureGradients {
  const T* centres;        // [branches][C], subtracted from the planes
  const T* linear_centres; // [linear][C]
  std::vector<T*> linear;  // sum over slots of coefficients * gradient
  T* crossed;              // [branches][C out][C in]: sums of gradient * (plane - centre)
  T* linear_crossed;       // [slots][linear][C]
  T* sums;                 // [slots][C]: sums of the gradient
};

template <class T>
void mixture_backward(const Mixture<T>& given, const std::vector<const T*>& gradients,
                      const MixtureGradients<T>& wanted);

// 3 x 3 poolings, padding 1: the largest, and the mean of the pixels inside the image.
template <class T>
void pool(const Size& size, const T* x, T* largest, T* average, T* mean, T* variance);

// The gradients reach the poolings as gradient + slope * pooled + constant ([2][C] each); a null
// gradient is zero, and its pooling is not read.
template <class T>
struct PoolBackward {
  const T *x, *largest, *average, *largest_gradient, *average_gradient;
  const T *slopes, *constants;
  const T* added;  // like x, or null
};

template <class T>
void pool_backward(const Size& size, const PoolBackward<T>& given, T* gradient);

}  // namespace sgas
