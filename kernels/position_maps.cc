#include "kernels/position_maps.h"

#include "kernels/core/check.h"
#include "kernels/core/dispatch.h"

namespace tadapt {

void blend_rows(Context& context, const GatedPair& factors, const GatedPair& rows, const Tensor& scale,
                const Tensor& out) {
  require_tensor(context, "blend_rows: gate's rows", rows.gate, {DType::kFloat32}, {kAnySize, kAnySize});
  const std::int64_t n = rows.gate.size(0), k = rows.gate.size(1);
  require_tensor(context, "blend_rows: up's rows", rows.up, {DType::kFloat32}, {n, k});
  require_tensor(context, "blend_rows: gate's factors", factors.gate, {DType::kFloat32}, {n});
  require_tensor(context, "blend_rows: up's factors", factors.up, {DType::kFloat32}, {n});
  require_tensor(context, "blend_rows: scale", scale, {DType::kFloat32}, {k});
  require_tensor(context, "blend_rows: out", out, {DType::kFloat32}, {n, k});
  TADAPT_DISPATCH(context, blend_rows, context, factors, rows, scale, out);
}

void map_rows(Context& context, const PositionMaps& maps, const Tensor& x, const Tensor& y) {
  require_tensor(context, "map_rows: x", x, {DType::kFloat32}, {kAnySize, kAnySize});
  const std::int64_t width = x.size(1);
  require_tensor(context, "map_rows: y", y, {DType::kFloat32}, {x.size(0), width});
  require_tensor(context, "map_rows: maps", maps.maps, {DType::kFloat32}, {kAnySize, width, width});
  require_tensor(context, "map_rows: offsets", maps.offsets, {DType::kInt32}, {maps.maps.size(0) + 1});
  require_tensor(context, "map_rows: rows", maps.rows, {DType::kInt32}, {kAnySize});
  TADAPT_DISPATCH(context, map_rows, context, maps, x, y);
}

}  // namespace tadapt
