// What the kernels take: images [N][H][W][C] in memory, channels last. operators.cpp fills these
// and checks them; each kernel stands in the file of its name.
#pragma once

#include <vector>

namespace sgas {

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

// A matrix [rows][C in] that gives the channels from first_row on.
template <class T>
struct Rows {
  const T* data;
  long first_row, rows;
};

// Separable convolutions, of R(input) or, where there are scales, of R(scale * input + shift).
template <class T>
struct Separable {
  Size size;
  std::vector<Taps> taps;
  std::vector<const T*> inputs;    // one for all, or one each
  std::vector<const T*> weights;   // [C][K][K]; null: a tap of one
  std::vector<Rows<T>> pointwise;
  const T* scales = nullptr;       // [convolutions][C]
  const T* shifts = nullptr;       // [convolutions][C]
  bool shared() const { return scales == nullptr; }
};

// Mean and biased variance of each output [convolutions][C] over all its pixels; null: not wanted.
template <class T>
struct Moments {
  T* mean;
  T* variance;
};

template <class T>
void separable(const Separable<T>& given, const std::vector<T*>& outputs, Moments<T> moments);

// out[slot] = before + bias + sum of factor * output of the slot; every slot has a convolution.
template <class T>
struct SeparableSum {
  std::vector<int> slot_of;      // by convolution
  const T* factors;              // [convolutions][C]
  const T* bias;                 // [slots][C]
  std::vector<const T*> before;  // by slot, null: zeros
};

template <class T>
void separable_sum(const Separable<T>& given, const SeparableSum<T>& sum, const std::vector<T*>& outs);

// The gradient of output i is factor_i * gradient_i + slope_i * output_i + constant_i; [C] each.
template <class T>
struct SeparableBackward {
  std::vector<const T*> gradients;
  const T* factors;
  std::vector<const T*> outputs;  // read where there are `slopes`
  const T* slopes = nullptr;
  const T* constants = nullptr;
  const T* centres = nullptr;     // [convolutions][C], subtracted from the inputs in `crossed`
  const T* added = nullptr;       // joins the gradient of a shared input
};

template <class T>
struct SeparableGradients {
  std::vector<T*> inputs;     // like the inputs; empty where not wanted
  std::vector<T*> weights;    // null where not wanted
  std::vector<T*> pointwise;  // null where not wanted
  T* crossed = nullptr;       // [convolutions][C]
  T* sums = nullptr;          // [convolutions][C]
};

template <class T>
void separable_backward(const Separable<T>& given, const SeparableBackward<T>& back,
                        const SeparableGradients<T>& wanted);

// Dense 3 x 3 convolutions of R(x), of stride 1.
template <class T>
struct Dense {
  Size size;
  const T* x;
  std::vector<const T*> weights;  // [C out][C in][3][3]
};

template <class T>
void dense(const Dense<T>& given, const std::vector<T*>& outputs, Moments<T> moments);

template <class T>
struct DenseGradients {
  T* x;                     // null where not wanted
  std::vector<T*> weights;  // null where not wanted
};

template <class T>
void dense_backward(const Dense<T>& given, const SeparableBackward<T>& back, const DenseGradients<T>& wanted);

// y = W R(x) + bias of pixels [in_channels]; y's gradient is factor * gradient + slope * y + constant.
template <class T>
struct Projection {
  long images, pixels, in_channels, channels;
  const T *x, *weight;  // weight [channels][in_channels]
  const T* bias = nullptr;  // [channels]; null: zeros
};

template <class T>
void projection(const Projection<T>& given, T* output, Moments<T> moments);

template <class T>
struct ProjectionBackward {
  const T *gradient, *factors, *output;
  const T *slopes, *constants;  // null: zero; output is read where there are slopes
};

template <class T>
void projection_backward(const Projection<T>& given, const ProjectionBackward<T>& back, T* to_x,
                         T* to_weight);  // null: not wanted

// out[slot] = before + bias + sum of factor * image of the slot + sum of coefficient * linear.
template <class T>
struct Mixture {
  long images, pixels, channels;
  long slots;
  std::vector<const T*> parts;     // [images * pixels][C] each
  std::vector<int> slot_of;        // by part
  const T* factors = nullptr;      // [parts][C]
  std::vector<const T*> linear;    // [images * pixels][C] each
  const T* coefficients;           // [slots][linear][C]
  const T* bias = nullptr;         // [slots][C]
  std::vector<const T*> before;    // by slot, null: zeros
};

template <class T>
void mixture(const Mixture<T>& given, const std::vector<T*>& outs);

template <class T>
struct MixtureGradients {
  const T* centres;        // [parts][C], subtracted from the parts
  const T* linear_centres; // [linear][C]
  std::vector<T*> linear;  // sum over slots of coefficients * gradient; null where not wanted
  T* crossed;              // [parts][C]: sums of gradient * (part - centre)
  T* linear_crossed;       // [slots][linear][C]
  T* sums;                 // [slots][C]: sums of the gradient
};

template <class T>
void mixture_backward(const Mixture<T>& given, const std::vector<const T*>& gradients,
                      const MixtureGradients<T>& wanted);

// 3 x 3 poolings, padding 1: the largest (null: not wanted, nor moments), and the mean of the pixels
// inside the image.
template <class T>
void pool(const Size& size, const T* x, T* largest, T* average, Moments<T> moments);

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
