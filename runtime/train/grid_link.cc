#include "runtime/train/grid_link.h"

#include "kernels/core/memory.h"

namespace tadapt {
namespace {

constexpr const char* kWhat = "states of a leaf";

}  // namespace

int GridLink::rank_of(Neighbour neighbour) const {
  const int rank = world_.rank(), block = grid_.block_of(rank), index = grid_.index_of(rank);
  switch (neighbour) {
    case Neighbour::kBefore:
      return grid_.rank_of(block - 1, index);
    case Neighbour::kBehind:
      return grid_.rank_of(block + 1, index);
    case Neighbour::kOtherSide:
      break;
  }
  const int other = grid_.branch_of(rank) == 0 ? 1 : -1;
  return grid_.rank_of(block, index + other);
}

void GridLink::send(const Tensor& values, Neighbour to) {
  const HostView host(context_, values);
  stall_.during([&] { world_.send(host.tensor(), rank_of(to), kWhat); });
}

void GridLink::receive(const Tensor& values, Neighbour from) {
  if (values.device() == Device::kCpu) {
    stall_.during([&] { world_.receive(values, rank_of(from), kWhat); });
    return;
  }
  if (host_.bytes() < values.bytes()) {
    host_ = Buffer();
    host_ = Buffer::pinned(context_.device(), DType::kFloat32, {values.elements()});
  }
  const Tensor host = host_.tensor().rows(0, values.elements()).reshaped(values.shape());
  stall_.during([&] { world_.receive(host, rank_of(from), kWhat); });
  copy(context_, host, values);
  synchronize(context_);
}

}  // namespace tadapt
