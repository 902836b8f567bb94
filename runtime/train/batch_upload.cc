#include "runtime/train/batch_upload.h"

#include "kernels/core/memory.h"

namespace tadapt {
namespace {

Tensor placed(Context& context, Buffer& memory, const Tensor& rows) {
  if (memory.bytes() < rows.bytes()) memory = Buffer(context.device(), rows.dtype(), rows.shape());
  return Tensor(memory.data(), rows.dtype(), rows.shape(), context.device());
}

}  // namespace

BatchUpload::BatchUpload(Context& context)
    : context_(context),
      copying_(context.beside()),
      places_{Place{{}, {}, Event(context.device()), Event(context.device())},
              Place{{}, {}, Event(context.device()), Event(context.device())}} {}

void BatchUpload::start(const ActivationBatch::Layer& layer) {
  if (context_.device() == Device::kCpu) {
    layer_ = layer;
    return;
  }
  current_ = 1 - current_;
  Place& place = places_[current_];
  // The place's last layer was taken before the other one's: what uses it has been asked of the context by now.
  place.used.record(context_);
  place.used.hold(copying_);
  layer_ = {placed(context_, place.x, layer.x), placed(context_, place.delta, layer.delta)};
  copy(copying_, layer.x, layer_.x);
  copy(copying_, layer.delta, layer_.delta);
  place.copied.record(copying_);
}

ActivationBatch::Layer BatchUpload::take() {
  places_[current_].copied.hold(context_);
  return layer_;
}

}  // namespace tadapt
