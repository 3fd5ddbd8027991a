/* The table of vectorised kernels. cpu/simd/table.cpp is compiled once per instruction set and fills one table each;
   cpu/dispatch.cpp chooses at run time. Plain data only: these types cross from baseline code into AVX code. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <stdint.h>

#include "base/bilinear.h"
#include "base/element.h"

namespace segfast {

// One row of one channel: dst[i * dst_stride] = (src[i * src_stride] - mean) / std, or the bare conversion.
struct NormalizeRow {
  const void* src;
  void* dst;
  int64_t src_stride, dst_stride, count;
  float mean, std;
  bool normalize;
};
using NormalizeRowKernel = void (*)(const NormalizeRow&);

// Per-class factors of the loss  alpha_y (lse - x_y) + sum_c beta_c (lse - x_c), in the arithmetic type of the logits:
// alpha = (1 - smoothing) * weight, beta = smoothing / C * weight. class_weight feeds the mean's denominator.
struct LossTables {
  const void *class_weight, *alpha, *beta;
  double beta_sum;
  bool weighted, smooth;  // not weighted: the values of class 0 are everybody's
};

struct LossSums {
  double loss = 0, weight = 0;
  int64_t correct = 0, valid = 0;
};

struct CrossEntropyForward {
  const void* logits;
  PixelGrid grid;
  PixelMap label, pixel_weight;  // pixel_weight.data may be null; it has the arithmetic type
  int64_t ignore_index;
  LossTables tables;
  bool accuracy;
  void* loss;  // (N, H, W) arithmetic type, or null
  void* lse;   // (N, H, W) arithmetic type; +inf where ignored
};

struct CrossEntropyBackward {
  const void* logits;
  PixelGrid grid;
  PixelMap label, pixel_weight;
  int64_t ignore_index;
  LossTables tables;
  const void* lse;
  const void* grad_loss;  // (N, H, W) arithmetic type, or null: then `scale` for every pixel
  double scale;
  void* grad;  // like logits, strides in grad_grid
  PixelGrid grad_grid;
};

// Pixels [begin, begin + count) of row (n, h).
struct PixelRun {
  int64_t n, h, begin, count;
};
using CrossEntropyForwardKernel = void (*)(const CrossEntropyForward&, const PixelRun&, LossSums*,
                                           LabelFaults*);
using CrossEntropyBackwardKernel = void (*)(const CrossEntropyBackward&, const PixelRun&);

// Vectors of cells along a low-resolution row and the pixels in them: see cpu/column_slots.h, which builds it.
// `left` and `right` are the weights of the two samples, in the arithmetic type.
struct ColumnSlots {
  int64_t vectors, most;  // most slots that any vector has
  const int64_t* first;   // [vectors + 1]: slots of vector v are first[v] .. first[v + 1] - 1
  const int32_t* pixel;   // [slots x lanes]: X, or the width of the output row in an empty place
  const int64_t*
      start;  // [vectors]: first pixel of a vector without empty places whose pixels follow each other, else -1
  const void *left, *right;
  int64_t size;  // slots x lanes
};

// The upsampled forms: `grid` is the low-resolution (N, C, h, w) grid; labels, loss and lse have the full size.
struct UpsampleForward {
  CrossEntropyForward ce;
  BilinearAxis rows, cols;
  ColumnSlots slots;
  void*
      gradient;  // of the sum of the losses, (N, C, h, w) contiguous arithmetic type; then nothing per pixel is written
};
struct UpsampleBackward {
  CrossEntropyBackward ce;
  BilinearAxis rows, cols;
  ColumnSlots slots;
};

// Rows of cells [y_begin, y_end) of image n (forward: from -1, the cells above the first sample), or the low-resolution
// sample rows that a backward task owns.
struct RowBlock {
  int64_t n, y_begin, y_end;
};
// One LossSums and LabelFaults per row of cells of the block.
using UpsampleForwardKernel = void (*)(const UpsampleForward&, const RowBlock&, LossSums*,
                                       LabelFaults*);
using UpsampleBackwardKernel = void (*)(const UpsampleBackward&, const RowBlock&);
// edge (C, w): what the block's last row of cells gives to the row of samples below it.
using UpsampleGradientKernel = void (*)(const UpsampleForward&, const RowBlock&, LossSums*,
                                        LabelFaults*, void* edge);

// dst[i * dst_stride] = src[i] * scale, from the arithmetic type to the logits' own.
struct ScaleRow {
  const void* src;
  void* dst;
  int64_t dst_stride, count;
  double scale;
};
using ScaleRowKernel = void (*)(const ScaleRow&);

// Classes of the output rows of a block of rows of cells, handed on row by row: classes (W,) of output row Y of image n.
struct UpsampleArgmax {
  const void* logits;
  PixelGrid grid;
  BilinearAxis rows, cols;
  ColumnSlots slots;
  void (*consume)(void* context, int64_t n, int64_t Y, const int32_t* classes);
};
using UpsampleArgmaxKernel = void (*)(const UpsampleArgmax&, const RowBlock&, void* context);

constexpr int kLogitTypes = 4;   // Element::kFloat .. kBFloat16
constexpr int kImageTypes = 10;  // Element::kFloat .. kInt64
constexpr int kPixelTypes = 3;   // float, half, bfloat16: kNormalizeOutputs[] gives the index

struct KernelTable {
  const char* name;
  int64_t vector_bytes;
  NormalizeRowKernel normalize_row[kImageTypes][kPixelTypes];
  CrossEntropyForwardKernel cross_entropy_forward[kLogitTypes];
  CrossEntropyBackwardKernel cross_entropy_backward[kLogitTypes];
  UpsampleForwardKernel upsample_forward[kLogitTypes];
  UpsampleBackwardKernel upsample_backward[kLogitTypes];
  UpsampleGradientKernel upsample_gradient[kLogitTypes];
  ScaleRowKernel scale_row[kLogitTypes];
  UpsampleArgmaxKernel upsample_argmax[kLogitTypes];
};

extern const KernelTable kernels_baseline, kernels_avx2, kernels_avx512;

// Throws: the machine has not so much memory for a kernel's scratch. Compiled as the rest of the library is.
[[noreturn]] void scratch_refused(int64_t bytes);

// The table for this machine; SEGFAST_CPU_CAPABILITY=baseline|avx2|avx512 asks for a lesser one. Chosen once.
const KernelTable& kernels();

}  // namespace segfast
