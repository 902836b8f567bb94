// The plan of a pairwise exchange and its execution step by step.
#include "runtime/comm/pairwise_exchange.h"

#include <algorithm>

#include "runtime/comm/reduction_tree.h"

namespace tadapt {
namespace {
// Below this, twice the messages cost more than the bytes saved.
constexpr std::size_t kWholeElements = 4 * kReductionBlock;

std::size_t lower_half(std::size_t elements) {
  const std::size_t blocks = (elements + kReductionBlock - 1) / kReductionBlock;
  return std::min(elements, (blocks + 1) / 2 * kReductionBlock);
}
}  // namespace

PairwiseExchange::PairwiseExchange(const Group& group, std::span<float> values, int tag) : tag_(tag) {
  std::vector<Step> way_back;
  for (int distance = 1; distance < group.size(); distance *= 2) {
    const bool lower = (group.rank & distance) == 0;
    const int peer = group.members[static_cast<std::size_t>(group.rank ^ distance)];
    const Arrival add = lower ? Arrival::kAddOnTheRight : Arrival::kAddOnTheLeft;
    if (values.size() <= kWholeElements && way_back.empty()) {
      steps_.push_back({peer, values, values, add});
      continue;
    }
    const std::size_t half = lower_half(values.size());
    const auto kept = lower ? values.first(half) : values.subspan(half);
    const auto given = lower ? values.subspan(half) : values.first(half);
    steps_.push_back({peer, given, kept, add});
    way_back.push_back({peer, kept, given, Arrival::kCopy});
    values = kept;
  }
  steps_.insert(steps_.end(), way_back.rbegin(), way_back.rend());
}

int PairwiseExchange::peer() const { return steps_.empty() ? 0 : steps_[std::min(current_, steps_.size() - 1)].peer; }

void PairwiseExchange::post(Transport& transport, std::vector<float>& scratch) {
  const Step& step = steps_[current_];
  if (!step.in.empty()) {
    if (step.arrival != Arrival::kCopy && scratch.size() < step.in.size()) scratch.resize(step.in.size());
    const auto target = step.arrival == Arrival::kCopy ? step.in : std::span(scratch).first(step.in.size());
    receiving_ = transport.receive(step.peer, tag_, std::as_writable_bytes(target));
  }
  if (!step.out.empty()) sending_ = transport.send(step.peer, tag_, std::as_bytes(step.out));
  posted_ = true;
}

bool PairwiseExchange::arrived() {
  if (receiving_ && receiving_->done()) receiving_.reset();
  if (sending_ && sending_->done()) sending_.reset();
  return !receiving_ && !sending_;
}

void PairwiseExchange::take(const Step& step, std::span<const float> received) {
  float* own = step.in.data();
  const std::size_t count = step.in.size();
  if (step.arrival == Arrival::kAddOnTheRight) {
    for (std::size_t i = 0; i < count; ++i) own[i] = own[i] + received[i];
  } else if (step.arrival == Arrival::kAddOnTheLeft) {
    for (std::size_t i = 0; i < count; ++i) own[i] = received[i] + own[i];
  }
}

Progress PairwiseExchange::advance(Transport& transport, std::vector<float>& scratch) {
  bool moved = false;
  while (current_ < steps_.size()) {
    if (!posted_) post(transport, scratch);
    if (!arrived()) return moved ? Progress::kMoved : Progress::kIdle;
    take(steps_[current_], scratch);
    ++current_;
    posted_ = false;
    moved = true;
  }
  return Progress::kDone;
}

}  // namespace tadapt
