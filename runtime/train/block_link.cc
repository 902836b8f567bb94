#include "runtime/train/block_link.h"

#include "kernels/core/memory.h"

namespace tadapt {

void BlockLink::send(const Tensor& values, Neighbour to) {
  chain_.send(HostView(context_, values).tensor(), rank_of(to), "states for another layer block");
}

void BlockLink::receive(const Tensor& values, Neighbour from) {
  if (values.device() == Device::kCpu) {
    chain_.receive(values, rank_of(from), "states of another layer block");
    return;
  }
  if (host_.bytes() < values.bytes()) {
    host_ = Buffer();
    host_ = Buffer::pinned(context_.device(), DType::kFloat32, {values.elements()});
  }
  const Tensor host = host_.tensor().rows(0, values.elements()).reshaped(values.shape());
  chain_.receive(host, rank_of(from), "states of another layer block");
  copy(context_, host, values);
  synchronize(context_);
}

}  // namespace tadapt
