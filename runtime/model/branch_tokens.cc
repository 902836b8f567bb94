#include "runtime/model/branch_tokens.h"

namespace tadapt {

void BranchTokens::place(Context& context, const TokenBatch& batch, int branches) {
  tokens_ = batch.tokens();
  sequences_ = batch.sequences();
  repeated_.clear();
  for (int branch = 0; branch < branches; ++branch) {
    for (int sequence = 0; sequence < sequences_; ++sequence) {
      const auto begin = static_cast<std::size_t>(batch.offsets[static_cast<std::size_t>(sequence)]);
      const auto end = static_cast<std::size_t>(batch.offsets[static_cast<std::size_t>(sequence) + 1]);
      repeated_.append(std::span(batch.ids).subspan(begin, end - begin));
    }
  }
  const TokenTensors placed = memory_.place(context, repeated_);
  ids_ = placed.ids;
  positions_ = placed.positions;
  offsets_ = placed.offsets;
}

TokenTensors BranchTokens::of(int branches) const {
  const std::int64_t rows = branches * tokens_;
  return {.batch = repeated_,
          .ids = ids_.rows(0, rows),
          .positions = positions_.rows(0, rows),
          .offsets = offsets_.rows(0, branches * sequences_ + 1)};
}

}  // namespace tadapt
