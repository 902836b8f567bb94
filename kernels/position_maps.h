// Linear maps of which every position has its own: how they are put together, and rows through them.
#pragma once

#include "kernels/core/backends.h"
#include "kernels/pointwise.h"

namespace tadapt {

/// Maps of T positions, and the rows that go through each.
struct PositionMaps {
  Tensor maps;     ///< [T, D, D] float32
  Tensor offsets;  ///< [T + 1] int32: rows_{offsets_t} to rows_{offsets_{t+1} − 1} are of position t
  Tensor rows;     ///< [R] int32, none twice
};

TADAPT_BACKENDS(void blend_rows(Context& context, const GatedPair& factors, const GatedPair& rows, const Tensor& scale,
                                const Tensor& out);
                void map_rows(Context& context, const PositionMaps& maps, const Tensor& x, const Tensor& y);)

/// out_{n,k} = (factors.gate_n · rows.gate_{n,k} + factors.up_n · rows.up_{n,k}) · scale_k
///   factors  gate and up [N] float32, read only
///   rows     gate and up [N, K] float32, read only
///   scale    [K] float32, read only
///   out      [N, K] float32, overwritten; may be either of the rows
/// Oracle: the formula in double.
void blend_rows(Context& context, const GatedPair& factors, const GatedPair& rows, const Tensor& scale,
                const Tensor& out);

/// y_r = x_r + x_r · maps_t   for every listed row r of every position t; other rows of y are left alone.
///   maps  read only
///   x     [N, D] float32, read only
///   y     [N, D] float32, must not overlap x
/// In fp32; on the CPU fused multiply-adds in order of x's columns, so that a row's bits are its own. Costs 2·D² FLOP a
/// row. Oracle: the sum in double.
void map_rows(Context& context, const PositionMaps& maps, const Tensor& x, const Tensor& y);

}  // namespace tadapt
