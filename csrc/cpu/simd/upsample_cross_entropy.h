/* Cross-entropy of bilinearly resized logits, without the resized logits: lanes are classes.
   Math     z_p = sum of four corner samples; loss and gradient as in cross_entropy.h; the gradient of a sample is the
            weighted sum over the pixels of its four cells (base/bilinear.h)
   Shapes   logits (N, C, h, w); labels, max and log-sum (N, H, W)
   Traffic  low-resolution rows are transposed once into (column, class) scratch: the arithmetic then runs over
            consecutive classes for any scale, up or down, and the two corner columns of a cell stay in L1 for all its pixels
   Order    a block owns its low-resolution samples and visits the cells around them in a fixed order: no atomics, no
            dependence on the number of threads. Cells on a block's rim are visited by both neighbours.
   Numerics as cross_entropy.h; padding lanes hold kPad, whose exponential is 0 */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "base/loss.h"
#include "cpu/kernels.h"
#include "cpu/simd/labels.h"

namespace segfast {
namespace {

constexpr float kPad = -3.0e38f;

// Samples [x_begin, x_begin + columns) of low-resolution row y, clamped at the borders, as (column, class) with `pitch`.
template <class S>
inline void load_samples(const void* logits, const PixelGrid& g, int64_t n, int64_t y,
                         int64_t x_begin, int64_t columns, int64_t pitch, Arithmetic<S>* out) {
  const int64_t row = y < 0 ? 0 : (y >= g.H ? g.H - 1 : y);
  const S* p = static_cast<const S*>(logits) + n * g.stride_n + row * g.stride_h;
  const auto clamped = [&](int64_t i) {
    const int64_t x = x_begin + i;
    return x < 0 ? 0 : (x >= g.W ? g.W - 1 : x);
  };
  if (g.stride_c == 1) {
    for (int64_t i = 0; i < columns; ++i) {
      const S* q = p + clamped(i) * g.stride_w;
      for (int64_t c = 0; c < g.C; ++c) out[i * pitch + c] = widen(q[c]);
    }
    return;
  }
  for (int64_t c = 0; c < g.C; ++c) {
    const S* q = p + c * g.stride_c;
    for (int64_t i = 0; i < columns; ++i) out[i * pitch + c] = widen(q[clamped(i) * g.stride_w]);
  }
}

// The pixels of cells [begin, end) along x: where each cell starts, and each pixel's lambda.
template <class T>
struct PixelColumns {
  int64_t first, count;  // X range
  int64_t* start;        // start[j]: first pixel of cell begin + j, relative to `first`
  T* lambda;
};
template <class T>
inline PixelColumns<T> pixel_columns(const BilinearAxis& axis, int64_t begin, int64_t end,
                                     int64_t* start, T* lambda) {
  const int64_t first = first_pixel(axis, begin), last = first_pixel(axis, end);
  for (int64_t j = begin; j <= end; ++j) start[j - begin] = first_pixel(axis, j) - first;
  for (int64_t x = first; x < last; ++x)
    lambda[x - first] = static_cast<T>(bilinear_sample(axis, x).lambda);
  return {first, last - first, start, lambda};
}

// row = (1 - ly) top + ly bottom, over whole vectors.
template <class T>
inline void blend_rows(const T* top, const T* bottom, T ly, int64_t count, T* row) {
  for (int64_t i = 0; i < count; i += kLanesOf<T>) {
    store<T>(row + i, load<T>(top + i) * (T(1) - ly) + load<T>(bottom + i) * ly);
  }
}

template <class T>
struct PixelSoftmax {
  T max, sum;
};
// Blends two corner columns into z (whole vectors) and reduces it.
template <class T>
inline PixelSoftmax<T> blend_softmax(const T* left, const T* right, T lambda, int64_t pitch, T* z) {
  constexpr int L = kLanesOf<T>;
  const T w0 = T(1) - lambda;
  Vec<T> top = load<T>(left) * w0 + load<T>(right) * lambda;
  store<T>(z, top);
  for (int64_t c = L; c < pitch; c += L) {
    const Vec<T> v = load<T>(left + c) * w0 + load<T>(right + c) * lambda;
    store<T>(z + c, v);
    top = vmax(top, v);
  }
  const T max = reduce_max<T, L>(top);
  Vec<T> sum{};
  for (int64_t c = 0; c < pitch; c += L) sum += vexp(load<T>(z + c) - max);
  const T total = reduce_add<T, L>(sum);
  return {max, max <= T(kPad) ? static_cast<T>(__builtin_nan(""))
                              : total};  // every logit -inf: no softmax, as in torch
}

template <class T>
inline bool is_first_maximum(const T* z, int32_t y, T max) {
  if (z[y] != max) return false;
  bool earlier = false;
  for (int32_t c = 0; c < y; ++c) earlier |= z[c] == max;
  return !earlier;
}

template <class S>
void upsample_forward(const UpsampleForward& u, const CellBlock& block, LossSums* sums,
                      LabelFaults* faults) {
  using T = Arithmetic<S>;
  constexpr int L = kLanesOf<T>;
  const CrossEntropyForward& a = u.ce;
  const PixelGrid& g = a.grid;
  const T *alpha = static_cast<const T*>(a.tables.alpha),
          *beta = static_cast<const T*>(a.tables.beta);
  const T* class_weight = static_cast<const T*>(a.tables.class_weight);
  const int64_t H = u.rows.out, W = u.cols.out, pitch = whole_vectors<T>(g.C);
  const int64_t cells = block.x_end - block.x_begin, columns = cells + 1;
  const int64_t width = first_pixel(u.cols, block.x_end) - first_pixel(u.cols, block.x_begin),
                padded = whole_vectors<T>(width);
  Scratch scratch(3 * Scratch::bytes<T>(columns * pitch) + Scratch::bytes<T>(pitch) +
                  5 * Scratch::bytes<T>(padded) + Scratch::bytes<int64_t>(columns) +
                  Scratch::bytes<int32_t>(padded));
  T *top = scratch.take<T>(columns * pitch), *bottom = scratch.take<T>(columns * pitch),
    *row = scratch.take<T>(columns * pitch);
  T* z = scratch.take<T>(pitch);
  T *max = scratch.take<T>(padded), *sum = scratch.take<T>(padded),
    *at_label = scratch.take<T>(padded);
  T *beta_dot = scratch.take<T>(padded), *lambda = scratch.take<T>(padded);
  int64_t* start = scratch.take<int64_t>(columns);
  int32_t* classes = scratch.take<int32_t>(padded);
  const PixelColumns<T> px = pixel_columns<T>(u.cols, block.x_begin, block.x_end, start, lambda);
  for (int64_t i = 0; i < columns * pitch; ++i) top[i] = bottom[i] = T(kPad);
  bool bottom_loaded = false;
  for (int64_t cell_y = block.y_begin; cell_y < block.y_end; ++cell_y) {
    const int64_t y_first = first_pixel(u.rows, cell_y), y_last = first_pixel(u.rows, cell_y + 1);
    if (y_first == y_last) {
      bottom_loaded = false;
      continue;
    }
    if (bottom_loaded) {
      T* swap = top;
      top = bottom;
      bottom = swap;
    } else {
      load_samples<S>(a.logits, g, block.n, cell_y, block.x_begin, columns, pitch, top);
    }
    load_samples<S>(a.logits, g, block.n, cell_y + 1, block.x_begin, columns, pitch, bottom);
    bottom_loaded = true;
    for (int64_t Y = y_first; Y < y_last; ++Y) {
      blend_rows(top, bottom, static_cast<T>(bilinear_sample(u.rows, Y).lambda), columns * pitch,
                 row);
      load_labels(a.label, {block.n, Y, px.first, px.count, H, W}, g.C, a.ignore_index, classes,
                  faults);
      for (int64_t j = 0; j < cells; ++j) {
        for (int64_t x = start[j]; x < start[j + 1]; ++x) {
          sum[x] = T(1);
          if (classes[x] < 0) continue;
          const PixelSoftmax<T> s =
              blend_softmax(row + j * pitch, row + (j + 1) * pitch, lambda[x], pitch, z);
          max[x] = s.max;
          sum[x] = s.sum;
          at_label[x] = z[classes[x]];
          if (a.accuracy) sums->correct += is_first_maximum(z, classes[x], s.max);
          if (a.tables.smooth) {
            T dot = 0;
            for (int64_t c = 0; c < g.C; ++c) dot += beta[c] * (z[c] - s.max);
            beta_dot[x] = dot;
          }
        }
      }
      for (int64_t x = 0; x < px.count; x += L) store<T>(sum + x, vlog(load<T>(sum + x)));
      const int64_t out_row = (block.n * H + Y) * W + px.first;
      T *out_max = static_cast<T*>(a.lse) + out_row, *out_log_sum = out_max + g.N * H * W;
      T* out_loss = a.loss ? static_cast<T*>(a.loss) + out_row : nullptr;
      for (int64_t x = 0; x < px.count; ++x) {
        const int32_t y = classes[x];
        T loss = 0;
        if (y >= 0) {
          loss = pixel_loss(alpha[y], sum[x], at_label[x] - max[x],
                            static_cast<T>(a.tables.beta_sum), beta_dot[x],
                            pixel_value<T>(a.pixel_weight, block.n, Y, px.first + x, T(1)));
          sums->loss += static_cast<double>(loss);
          sums->weight += static_cast<double>(class_weight[y]);
          sums->valid += 1;
        }
        out_max[x] = y >= 0 ? max[x] : T(0);
        out_log_sum[x] = y >= 0 ? sum[x] : kInfinity<T>;
        if (out_loss) out_loss[x] = loss;
      }
    }
  }
}

// Per-pixel factors of one output row, for the backward's inner loop; an ignored pixel has log_sum +inf and factors 0.
template <class T>
struct RowFactors {
  T *max, *log_sum, *k, *k_softmax, *k_label;
  int32_t* classes;
};

template <class T>
inline void load_factors(const UpsampleBackward& u, int64_t n, int64_t Y, const PixelColumns<T>& px,
                         const RowFactors<T>& f) {
  const CrossEntropyBackward& a = u.ce;
  const int64_t H = u.rows.out, W = u.cols.out, out_row = (n * H + Y) * W + px.first;
  const T *alpha = static_cast<const T*>(a.tables.alpha),
          *in_max = static_cast<const T*>(a.lse) + out_row;
  const T* in_log_sum = in_max + a.grid.N * H * W;
  load_labels(a.label, {n, Y, px.first, px.count, H, W}, a.grid.C, a.ignore_index, f.classes,
              nullptr);
  for (int64_t x = 0; x < px.count; ++x) {
    const int32_t y = f.classes[x];
    const T g = y < 0 ? T(0)
                      : (a.grad_loss ? static_cast<const T*>(a.grad_loss)[out_row + x]
                                     : static_cast<T>(a.scale));
    const GradientFactors<T> factors =
        gradient_factors(g, pixel_value<T>(a.pixel_weight, n, Y, px.first + x, T(1)),
                         y < 0 ? T(0) : alpha[y], static_cast<T>(a.tables.beta_sum));
    f.k[x] = factors.for_beta;
    f.k_softmax[x] = factors.for_softmax;
    f.k_label[x] = factors.for_label;
    f.max[x] = in_max[x];
    f.log_sum[x] = y < 0 ? kInfinity<T> : in_log_sum[x];
  }
}

// Adds the gradient of one cell's pixels [x_begin, x_end) to its two corner columns.
template <class T>
inline void cell_gradient(const T* left, const T* right, const RowFactors<T>& f, const T* lambda,
                          int64_t x_begin, int64_t x_end, const LossTables& tables,
                          int64_t num_classes, int64_t pitch, T* grad_left, T* grad_right) {
  constexpr int L = kLanesOf<T>;
  const T* beta = static_cast<const T*>(tables.beta);
  for (int64_t c = 0; c < pitch; c += L) {
    const Vec<T> a = load<T>(left + c), b = load<T>(right + c);
    Vec<T> sum{}, sum_right{};
    for (int64_t x = x_begin; x < x_end; ++x) {
      const Vec<T> z = a * (T(1) - lambda[x]) + b * lambda[x];
      const Vec<T> grad = vexp((z - f.max[x]) - f.log_sum[x]) * f.k_softmax[x];
      sum += grad * (T(1) - lambda[x]);
      sum_right += grad * lambda[x];
    }
    store<T>(grad_left + c, load<T>(grad_left + c) + sum);
    store<T>(grad_right + c, load<T>(grad_right + c) + sum_right);
  }
  T k_left = 0, k_right = 0;
  for (int64_t x = x_begin; x < x_end; ++x) {
    if (f.classes[x] < 0) continue;
    grad_left[f.classes[x]] -= (T(1) - lambda[x]) * f.k_label[x];
    grad_right[f.classes[x]] -= lambda[x] * f.k_label[x];
    k_left += (T(1) - lambda[x]) * f.k[x];
    k_right += lambda[x] * f.k[x];
  }
  if (!tables.smooth) return;
  for (int64_t c = 0; c < num_classes; ++c) {
    grad_left[c] -= k_left * beta[c];
    grad_right[c] -= k_right * beta[c];
  }
}

// grad[n, :, y, x_begin + i] = from_above + from_below for the owned columns, transposed back and narrowed.
template <class S>
inline void store_gradient(const UpsampleBackward& u, const CellBlock& block, int64_t y,
                           int64_t pitch, const Arithmetic<S>* from_above,
                           const Arithmetic<S>* from_below) {
  const PixelGrid& gg = u.ce.grad_grid;
  S* p = static_cast<S*>(u.ce.grad) + block.n * gg.stride_n + y * gg.stride_h +
         block.x_begin * gg.stride_w;
  const int64_t owned = block.x_end - block.x_begin;
  const auto value = [&](int64_t i, int64_t c) {
    return from_above[(i + 1) * pitch + c] + from_below[(i + 1) * pitch + c];
  };
  if (gg.stride_c == 1) {
    for (int64_t i = 0; i < owned; ++i)
      for (int64_t c = 0; c < gg.C; ++c) narrow(value(i, c), p + i * gg.stride_w + c);
    return;
  }
  for (int64_t c = 0; c < gg.C; ++c)
    for (int64_t i = 0; i < owned; ++i) narrow(value(i, c), p + c * gg.stride_c + i * gg.stride_w);
}

template <class S>
void upsample_backward(const UpsampleBackward& u, const CellBlock& block) {
  using T = Arithmetic<S>;
  constexpr int L = kLanesOf<T>;
  const CrossEntropyBackward& a = u.ce;
  const PixelGrid& g = a.grid;
  // Owned samples are x_begin .. x_end - 1; the cells around them reach from x_begin - 1 to x_end - 1.
  const int64_t cell_begin = block.x_begin - 1, cells = block.x_end - cell_begin,
                columns = cells + 1;
  const int64_t pitch = whole_vectors<T>(g.C), size = columns * pitch;
  const int64_t width = first_pixel(u.cols, block.x_end) - first_pixel(u.cols, cell_begin);
  Scratch scratch(7 * Scratch::bytes<T>(size) + 6 * Scratch::bytes<T>(width) +
                  Scratch::bytes<int64_t>(columns) + Scratch::bytes<int32_t>(width));
  T *top = scratch.take<T>(size), *bottom = scratch.take<T>(size), *row = scratch.take<T>(size),
    *grad_row = scratch.take<T>(size);
  T *grad_top = scratch.take<T>(size), *grad_bottom = scratch.take<T>(size),
    *from_above = scratch.take<T>(size);
  T* lambda = scratch.take<T>(width);
  RowFactors<T> f{scratch.take<T>(width), scratch.take<T>(width), scratch.take<T>(width),
                  scratch.take<T>(width), scratch.take<T>(width), nullptr};
  int64_t* start = scratch.take<int64_t>(columns);
  f.classes = scratch.take<int32_t>(width);
  const PixelColumns<T> px = pixel_columns<T>(u.cols, cell_begin, block.x_end, start, lambda);
  for (int64_t i = 0; i < size; ++i) top[i] = bottom[i] = T(kPad);
  for (int64_t cell_y = block.y_begin - 1; cell_y < block.y_end; ++cell_y) {
    for (int64_t i = 0; i < size; ++i) grad_top[i] = grad_bottom[i] = T(0);
    const int64_t y_first = first_pixel(u.rows, cell_y), y_last = first_pixel(u.rows, cell_y + 1);
    if (y_first < y_last) {
      load_samples<S>(a.logits, g, block.n, cell_y, cell_begin, columns, pitch, top);
      load_samples<S>(a.logits, g, block.n, cell_y + 1, cell_begin, columns, pitch, bottom);
    }
    for (int64_t Y = y_first; Y < y_last; ++Y) {
      const T ly = static_cast<T>(bilinear_sample(u.rows, Y).lambda);
      blend_rows(top, bottom, ly, size, row);
      load_factors(u, block.n, Y, px, f);
      for (int64_t i = 0; i < size; ++i) grad_row[i] = T(0);
      for (int64_t j = 0; j < cells; ++j) {
        cell_gradient(row + j * pitch, row + (j + 1) * pitch, f, lambda, start[j], start[j + 1],
                      a.tables, g.C, pitch, grad_row + j * pitch, grad_row + (j + 1) * pitch);
      }
      for (int64_t i = 0; i < size; i += L) {
        const Vec<T> grad = load<T>(grad_row + i);
        store<T>(grad_top + i, load<T>(grad_top + i) + grad * (T(1) - ly));
        store<T>(grad_bottom + i, load<T>(grad_bottom + i) + grad * ly);
      }
    }
    if (cell_y >= block.y_begin) store_gradient<S>(u, block, cell_y, pitch, from_above, grad_top);
    T* swap = from_above;
    from_above = grad_bottom;
    grad_bottom = swap;
  }
}

}  // namespace
}  // namespace segfast
