#include "runtime/capture/row_transfer.h"

#include "kernels/core/memory.h"
#include "runtime/adapter/grown.h"

namespace tadapt {
namespace {

constexpr std::size_t kStages = 4;  // x and Δ of two layers

}  // namespace

RowTransfer::RowTransfer(Context& context) : context_(context), copying_(context.beside()), made_(context.device()) {
  for (std::size_t i = 0; i < kStages; ++i) stages_.push_back({Buffer(), Event(context.device())});
}

Tensor RowTransfer::begin(const Tensor& destination) {
  destination_ = rows_ = destination;
  if (context_.device() == destination.device()) return rows_;
  current_ = (current_ + 1) % kStages;
  Stage& stage = stages_[current_];
  const std::int64_t needed = destination.elements();
  if (stage.rows.tensor().elements() < needed) stage.copied.wait();
  stage.copied.hold(context_);
  rows_ = grown(context_, stage.rows, DType::kFloat32, destination.size(0), destination.size(1));
  return rows_;
}

void RowTransfer::send() {
  if (context_.device() == destination_.device()) return;
  made_.record(context_);
  made_.hold(copying_);
  copy(copying_, rows_, destination_);
  stages_[current_].copied.record(copying_);
}

void RowTransfer::finish() { synchronize(copying_); }

}  // namespace tadapt
