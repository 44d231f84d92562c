// Torch as kernels see it: tensors on the CPU, threads, and the operators that they are.
//
// All of it goes through torch's C interface, which stays as it is from torch 2.10 on: one build
// serves every such torch, needs none of its headers, and compiles without it. What an operator calls
// of torch is not recorded for gradients.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

extern "C" {
struct AtenTensorOpaque;
struct StableListOpaque;
struct TorchLibraryOpaque;
using AtenTensorHandle = AtenTensorOpaque*;
using StableListHandle = StableListOpaque*;
using TorchLibraryHandle = TorchLibraryOpaque*;

// Each returns 0 where it succeeds.
int32_t aoti_torch_new_tensor_handle(AtenTensorHandle, AtenTensorHandle*);
int32_t aoti_torch_delete_tensor_object(AtenTensorHandle);
int32_t aoti_torch_empty_strided(int64_t dim, const int64_t* sizes, const int64_t* strides, int32_t type,
                                 int32_t device, int32_t device_index, AtenTensorHandle*);
int32_t aoti_torch__reinterpret_tensor(AtenTensorHandle, int64_t dim, const int64_t* sizes,
                                       const int64_t* strides, int64_t offset, AtenTensorHandle*);
int32_t torch_get_const_data_ptr(AtenTensorHandle, const void**);
int32_t torch_get_mutable_data_ptr(AtenTensorHandle, void**);
int32_t aoti_torch_get_dim(AtenTensorHandle, int64_t*);
int32_t aoti_torch_get_numel(AtenTensorHandle, int64_t*);
int32_t aoti_torch_get_sizes(AtenTensorHandle, int64_t**);
int32_t aoti_torch_get_strides(AtenTensorHandle, int64_t**);
int32_t aoti_torch_get_dtype(AtenTensorHandle, int32_t*);
int32_t aoti_torch_get_device_type(AtenTensorHandle, int32_t*);
int32_t aoti_torch_is_contiguous(AtenTensorHandle, bool*);
int32_t aoti_torch_copy_(AtenTensorHandle to, AtenTensorHandle from, int32_t non_blocking);
int32_t aoti_torch_cpu_mm_out(AtenTensorHandle out, AtenTensorHandle, AtenTensorHandle);
int32_t aoti_torch_cpu_addmm_out(AtenTensorHandle out, AtenTensorHandle, AtenTensorHandle,
                                 AtenTensorHandle, double beta, double alpha);
int32_t aoti_torch_cpu_mul_Scalar(AtenTensorHandle, double, AtenTensorHandle*);
int32_t torch_call_dispatcher(const char* name, const char* overload, uint64_t* stack, uint64_t version);
int32_t torch_parallel_for(int64_t begin, int64_t end, int64_t grain,
                           void (*body)(int64_t, int64_t, void*), void* context);
int32_t torch_get_num_threads(uint32_t*);
int32_t torch_new_list_reserve_size(size_t, StableListHandle*);
int32_t torch_list_size(StableListHandle, size_t*);
int32_t torch_list_get_item(StableListHandle, size_t, uint64_t*);
int32_t torch_list_push_back(StableListHandle, uint64_t);
int32_t torch_delete_list(StableListHandle);
int32_t aoti_torch_library_init_fragment(const char* space, const char* file, uint32_t line,
                                         TorchLibraryHandle*);
int32_t aoti_torch_library_init_impl(const char* space, const char* key, const char* file, uint32_t line,
                                     TorchLibraryHandle*);
int32_t aoti_torch_library_def(TorchLibraryHandle, const char* schema);
int32_t torch_library_impl(TorchLibraryHandle, const char* name,
                           void (*)(uint64_t* stack, uint64_t arguments, uint64_t results), uint64_t version);

bool aoti_torch_grad_mode_is_enabled();
void aoti_torch_grad_mode_set_enabled(bool);
int32_t aoti_torch_device_type_cpu();
size_t aoti_torch_dtype_element_size(int32_t);
int32_t aoti_torch_dtype_float32();
int32_t aoti_torch_dtype_float64();
int32_t aoti_torch_dtype_uint8();
int32_t aoti_torch_dtype_int32();
int32_t aoti_torch_dtype_int64();
}

namespace sgas {

constexpr uint64_t ABI_VERSION = 2ull << 56 | 10ull << 48;  // what a build asks for: torch 2.10

[[noreturn, gnu::cold, gnu::noinline]] inline void torch_failed(const char* name) {
  throw std::runtime_error(std::string("torch failed in ") + name + "; it says why on standard error");
}
#define SGAS_CALL(function, ...)                                     \
  do {                                                               \
    if (function(__VA_ARGS__) != 0) ::sgas::torch_failed(#function); \
  } while (false)

enum class ScalarType : int32_t {};
inline std::string name_of(ScalarType type);
inline const ScalarType kFloat{aoti_torch_dtype_float32()}, kDouble{aoti_torch_dtype_float64()},
    kByte{aoti_torch_dtype_uint8()}, kInt{aoti_torch_dtype_int32()}, kLong{aoti_torch_dtype_int64()};

template <class T>
ScalarType type_of() {
  if constexpr (std::is_same_v<T, float>) return kFloat;
  else if constexpr (std::is_same_v<T, double>) return kDouble;
  else if constexpr (std::is_same_v<T, int32_t>) return kInt;
  else {
    static_assert(std::is_same_v<T, int64_t>);
    return kLong;
  }
}

// Somebody else's values, one after the other.
template <class T>
class List {
 public:
  List() = default;
  List(const T* data, size_t size) : data_(data), size_(size) {}
  List(const std::vector<T>& values) : List(values.data(), values.size()) {}
  List(std::initializer_list<T> values) : List(values.begin(), values.size()) {}
  const T* begin() const { return data_; }
  const T* end() const { return data_ + size_; }
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  const T& operator[](size_t i) const { return data_[i]; }
  std::vector<T> vec() const { return {begin(), end()}; }
  bool operator==(const List& other) const { return std::equal(begin(), end(), other.begin(), other.end()); }

 private:
  const T* data_ = nullptr;
  size_t size_ = 0;
};

// Of a new tensor.
struct Options {
  ScalarType type;
  Options dtype(ScalarType other) const { return {other}; }
};

class Tensor {
 public:
  Tensor() = default;  // none
  explicit Tensor(AtenTensorHandle own) : own_(own) {}
  Tensor(const Tensor& other) {
    if (other.own_) SGAS_CALL(aoti_torch_new_tensor_handle, other.own_, &own_);
  }
  Tensor(Tensor&& other) noexcept : own_(std::exchange(other.own_, nullptr)) {}
  Tensor& operator=(Tensor other) noexcept {
    std::swap(own_, other.own_);
    return *this;
  }
  ~Tensor() {
    if (own_) aoti_torch_delete_tensor_object(own_);
  }

  AtenTensorHandle get() const { return own_; }
  AtenTensorHandle release() { return std::exchange(own_, nullptr); }
  bool defined() const { return own_ != nullptr; }

  int64_t dim() const { return asked<int64_t>(aoti_torch_get_dim); }
  int64_t numel() const { return asked<int64_t>(aoti_torch_get_numel); }
  bool is_contiguous() const { return asked<bool>(aoti_torch_is_contiguous); }
  bool is_cpu() const { return asked<int32_t>(aoti_torch_get_device_type) == aoti_torch_device_type_cpu(); }
  ScalarType scalar_type() const { return ScalarType{asked<int32_t>(aoti_torch_get_dtype)}; }
  Options options() const { return {scalar_type()}; }
  size_t nbytes() const { return numel() * aoti_torch_dtype_element_size(static_cast<int32_t>(scalar_type())); }
  List<int64_t> sizes() const { return {asked<int64_t*>(aoti_torch_get_sizes), static_cast<size_t>(dim())}; }
  List<int64_t> strides() const { return {asked<int64_t*>(aoti_torch_get_strides), static_cast<size_t>(dim())}; }
  int64_t size(int64_t d) const { return asked<int64_t*>(aoti_torch_get_sizes)[d < 0 ? d + dim() : d]; }
  int64_t stride(int64_t d) const { return asked<int64_t*>(aoti_torch_get_strides)[d < 0 ? d + dim() : d]; }

  const void* const_data_ptr() const { return asked<const void*>(torch_get_const_data_ptr); }
  void* data_ptr() const { return asked<void*>(torch_get_mutable_data_ptr); }
  template <class T>
  const T* const_data_ptr() const {
    check_type(type_of<T>());
    return static_cast<const T*>(const_data_ptr());
  }
  template <class T>
  T* mutable_data_ptr() const {
    check_type(type_of<T>());
    return static_cast<T*>(data_ptr());
  }
  template <class T>
  T* data_ptr() const {
    return mutable_data_ptr<T>();
  }

  // Views of the same numbers.
  Tensor narrow(int64_t d, int64_t first, int64_t length) const {
    auto shape = sizes().vec();
    shape.at(d) = length;
    return viewed(shape, strides(), first * stride(d));
  }
  Tensor transpose(int64_t one, int64_t other) const {
    auto shape = sizes().vec(), steps = strides().vec();
    std::swap(shape.at(one), shape.at(other));
    std::swap(steps.at(one), steps.at(other));
    return viewed(shape, steps, 0);
  }
  Tensor t() const { return transpose(0, 1); }
  Tensor operator[](int64_t i) const {
    auto shape = sizes().vec(), steps = strides().vec();
    const int64_t offset = i * steps.at(0);
    shape.erase(shape.begin());
    steps.erase(steps.begin());
    return viewed(shape, steps, offset);
  }
  Tensor view(List<int64_t> shape) const;  // of a contiguous tensor

  // The tensor itself where it is so already.
  Tensor contiguous() const;
  Tensor to(ScalarType type) const;
  Tensor clone() const;
  void copy_(const Tensor& from) const { SGAS_CALL(aoti_torch_copy_, own_, from.own_, 0); }
  Tensor sum(int64_t d) const;

 private:
  template <class Answer>
  Answer asked(int32_t (*question)(AtenTensorHandle, Answer*)) const {
    Answer answer{};
    if (question(own_, &answer) != 0) torch_failed("a tensor's property");
    return answer;
  }
  Tensor viewed(List<int64_t> shape, List<int64_t> steps, int64_t offset) const {
    AtenTensorHandle view;
    SGAS_CALL(aoti_torch__reinterpret_tensor, own_, shape.size(), shape.begin(), steps.begin(), offset, &view);
    return Tensor(view);
  }
  void check_type(ScalarType wanted) const {
    if (scalar_type() != wanted)
      throw std::runtime_error("expected a tensor of " + name_of(wanted) + ", not " + name_of(scalar_type()));
  }

  AtenTensorHandle own_ = nullptr;
};

inline std::vector<int64_t> dense_strides(List<int64_t> shape) {
  std::vector<int64_t> strides(shape.size());
  int64_t step = 1;
  for (size_t d = shape.size(); d-- > 0; step *= std::max<int64_t>(shape[d], 1)) strides[d] = step;
  return strides;
}

inline Tensor empty(List<int64_t> shape, Options options) {
  AtenTensorHandle made;
  SGAS_CALL(aoti_torch_empty_strided, shape.size(), shape.begin(), dense_strides(shape).data(),
            static_cast<int32_t>(options.type), aoti_torch_device_type_cpu(), 0, &made);
  return Tensor(made);
}

inline Tensor zeros(List<int64_t> shape, Options options) {
  Tensor made = empty(shape, options);
  if (const size_t bytes = made.nbytes()) std::memset(made.data_ptr(), 0, bytes);
  return made;
}

inline Tensor full(List<int64_t> shape, double value, Options options) {
  Tensor made = empty(shape, options);
  if (options.type == kDouble) std::fill_n(made.data_ptr<double>(), made.numel(), value);
  else std::fill_n(made.data_ptr<float>(), made.numel(), static_cast<float>(value));
  return made;
}

inline Tensor ones(List<int64_t> shape, Options options) { return full(shape, 1, options); }

inline Tensor Tensor::view(List<int64_t> shape) const { return viewed(shape, dense_strides(shape), 0); }
inline Tensor Tensor::clone() const {
  Tensor copy = empty(sizes(), options());
  copy.copy_(*this);
  return copy;
}
inline Tensor Tensor::contiguous() const { return is_contiguous() ? *this : clone(); }
inline Tensor Tensor::to(ScalarType type) const {
  if (type == scalar_type()) return *this;
  Tensor copy = empty(sizes(), Options{type});
  copy.copy_(*this);
  return copy;
}

// Of matrices.
inline void write_product(const Tensor& out, const Tensor& a, const Tensor& b) {
  SGAS_CALL(aoti_torch_cpu_mm_out, out.get(), a.get(), b.get());
}
inline Tensor product_of(const Tensor& a, const Tensor& b) {
  Tensor out = empty({a.size(0), b.size(1)}, a.options());
  write_product(out, a, b);
  return out;
}
inline void add_product(const Tensor& out, const Tensor& a, const Tensor& b) {
  SGAS_CALL(aoti_torch_cpu_addmm_out, out.get(), out.get(), a.get(), b.get(), 1, 1);
}
inline Tensor doubled(const Tensor& x) {
  AtenTensorHandle made;
  SGAS_CALL(aoti_torch_cpu_mul_Scalar, x.get(), 2, &made);
  return Tensor(made);
}
// Tells autograd that a kernel wrote to x.
inline void was_changed(const Tensor& x) { x.copy_(x); }

template <class Body>
void parallel_for(int64_t begin, int64_t end, int64_t grain, const Body& body) {
  SGAS_CALL(torch_parallel_for, begin, end, grain,
            [](int64_t first, int64_t last, void* given) { (*static_cast<const Body*>(given))(first, last); },
            const_cast<void*>(static_cast<const void*>(&body)));
}

inline int get_num_threads() {
  uint32_t number;
  SGAS_CALL(torch_get_num_threads, &number);
  return static_cast<int>(number);
}

using Bools = std::vector<bool>;
using MaybeTensors = std::vector<std::optional<Tensor>>;

// A value as one of the 64-bit words by which torch hands arguments on, and back. Who reads a word
// owns what it stands for.
template <class T>
struct Word {
  static_assert(std::is_same_v<T, int64_t> || std::is_same_v<T, double> || std::is_same_v<T, bool>);
  static uint64_t of(T value) {
    uint64_t word = 0;
    std::memcpy(&word, &value, sizeof value);
    return word;
  }
  static T read(uint64_t word) {
    T value;
    std::memcpy(&value, &word, sizeof value);
    return value;
  }
};

template <>
struct Word<Tensor> {
  static uint64_t of(Tensor value) { return reinterpret_cast<uint64_t>(value.release()); }
  static Tensor read(uint64_t word) { return Tensor(reinterpret_cast<AtenTensorHandle>(word)); }
};

template <class T>
struct Word<std::optional<T>> {
  static uint64_t of(std::optional<T> value) {
    return value ? reinterpret_cast<uint64_t>(new uint64_t(Word<T>::of(*std::move(value)))) : 0;
  }
  static std::optional<T> read(uint64_t word) {
    if (word == 0) return std::nullopt;
    auto* inner = reinterpret_cast<uint64_t*>(word);
    const uint64_t value = *inner;
    delete inner;
    return Word<T>::read(value);
  }
};

template <class T>
struct Word<std::vector<T>> {
  static uint64_t of(std::vector<T> values) {
    StableListHandle list;
    SGAS_CALL(torch_new_list_reserve_size, values.size(), &list);
    for (auto& value : values) SGAS_CALL(torch_list_push_back, list, Word<T>::of(std::move(value)));
    return reinterpret_cast<uint64_t>(list);
  }
  static std::vector<T> read(uint64_t word) {
    const auto list = reinterpret_cast<StableListHandle>(word);
    size_t size;
    SGAS_CALL(torch_list_size, list, &size);
    std::vector<T> values;
    values.reserve(size);
    for (size_t i = 0; i < size; i++) {
      uint64_t item;
      SGAS_CALL(torch_list_get_item, list, i, &item);
      values.push_back(Word<T>::read(item));
    }
    SGAS_CALL(torch_delete_list, list);
    return values;
  }
};

// Calls an operator of torch that gives one tensor.
template <class... Arguments>
Tensor call(const char* name, const char* overload, Arguments... arguments) {
  uint64_t stack[] = {Word<Arguments>::of(std::move(arguments))...};
  if (torch_call_dispatcher(name, overload, stack, ABI_VERSION) != 0) torch_failed(name);
  return Word<Tensor>::read(stack[0]);
}

inline Tensor Tensor::sum(int64_t d) const {
  return call("aten::sum", "dim_IntList", *this, std::optional(std::vector<int64_t>{d}), false, std::optional<int64_t>());
}
inline void take_exponentials(const Tensor& x) { call("aten::exp_", "", x); }

struct NoGradient {
  const bool before = aoti_torch_grad_mode_is_enabled();
  NoGradient() { aoti_torch_grad_mode_set_enabled(false); }
  ~NoGradient() { aoti_torch_grad_mode_set_enabled(before); }
};

// What holds an argument for as long as a function looks at it.
template <class T>
struct HolderOf {
  using type = T;
};
template <class T>
struct HolderOf<List<T>> {
  using type = std::vector<T>;
};

// Operators of a namespace, for the CPU.
class Operators {
 public:
  explicit Operators(const char* space) {
    SGAS_CALL(aoti_torch_library_init_fragment, space, __FILE__, __LINE__, &schemas_);
    SGAS_CALL(aoti_torch_library_init_impl, space, "CPU", __FILE__, __LINE__, &kernels_);
  }

  template <auto function>
  void add(const char* schema) {
    SGAS_CALL(aoti_torch_library_def, schemas_, schema);
    SGAS_CALL(torch_library_impl, kernels_, std::string(schema, std::strchr(schema, '(')).c_str(),
              [](uint64_t* stack, uint64_t, uint64_t) { run(function, stack); }, ABI_VERSION);
  }

 private:
  template <class Result, class... Arguments>
  static void run(Result (*function)(Arguments...), uint64_t* stack) {
    const NoGradient none;
    const uint64_t* next = stack;
    std::tuple<typename HolderOf<std::decay_t<Arguments>>::type...> held{
        Word<typename HolderOf<std::decay_t<Arguments>>::type>::read(*next++)...};
    if constexpr (std::is_void_v<Result>) std::apply(function, held);
    else give_back(std::apply(function, held), stack);
  }
  template <class Result>
  static void give_back(Result result, uint64_t* stack) {
    *stack = Word<Result>::of(std::move(result));
  }
  template <class... Results>
  static void give_back(std::tuple<Results...> results, uint64_t* stack) {
    std::apply([&](auto&... each) { ((*stack++ = Word<Results>::of(std::move(each))), ...); }, results);
  }

  TorchLibraryHandle schemas_, kernels_;
};

// Defines operators of a namespace of torch.ops as a library is loaded; they stay.
#define SGAS_OPERATORS(space, operators) SGAS_OPERATORS_OF(space, operators, __COUNTER__)
#define SGAS_OPERATORS_OF(space, operators, number) SGAS_OPERATORS_AS(space, operators, number)
#define SGAS_OPERATORS_AS(space, operators, number)                                       \
  static void sgas_define_##number(::sgas::Operators&);                                   \
  static const bool sgas_defined_##number =                                               \
      (sgas_define_##number(*new ::sgas::Operators(#space)), true);                       \
  static void sgas_define_##number(::sgas::Operators& operators)

// As Python names it.
[[gnu::cold]] inline std::string name_of(ScalarType type) {
  if (type == kFloat) return "float32";
  if (type == kDouble) return "float64";
  if (type == kByte) return "uint8";
  if (type == kInt) return "int32";
  if (type == kLong) return "int64";
  return "torch's type number " + std::to_string(static_cast<int>(type));
}

// A part of a message.
struct Text {
  std::string text;
  [[gnu::cold]] Text(const char* text) : text(text) {}
  [[gnu::cold]] Text(int number) : text(std::to_string(number)) {}
  [[gnu::cold]] Text(int64_t number) : text(std::to_string(number)) {}
  [[gnu::cold]] Text(size_t number) : text(std::to_string(number)) {}
  [[gnu::cold]] Text(ScalarType type) : text(name_of(type)) {}
  [[gnu::cold]] Text(List<int64_t> shape) : text("[") {
    for (size_t d = 0; d < shape.size(); d++) text += (d ? ", " : "") + std::to_string(shape[d]);
    text += "]";
  }
};

[[noreturn, gnu::cold, gnu::noinline]] inline void fail(std::initializer_list<Text> parts) {
  std::string message;
  for (const Text& part : parts) message += part.text;
  throw std::runtime_error(message);
}
#define SGAS_CHECK(condition, ...)                                    \
  do {                                                                \
    if (__builtin_expect(!(condition), 0)) ::sgas::fail({__VA_ARGS__}); \
  } while (false)

// Runs a lambda in which scalar_t is float or double.
#define SGAS_FLOATING_TYPES(type, name, ...)                             \
  do {                                                                   \
    const auto sgas_type = type;                                         \
    if (sgas_type == ::sgas::kFloat) {                                   \
      using scalar_t = float;                                            \
      (__VA_ARGS__)();                                                   \
    } else {                                                             \
      SGAS_CHECK(sgas_type == ::sgas::kDouble, name,                     \
                 " takes float32 and float64, not ", sgas_type);         \
      using scalar_t = double;                                           \
      (__VA_ARGS__)();                                                   \
    }                                                                    \
  } while (false)

}  // namespace sgas
