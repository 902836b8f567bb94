// Carrying out a plan step by step.
#include "runtime/comm/pairwise_exchange.h"

#include <algorithm>

namespace tadapt {

PairwiseExchange::PairwiseExchange(const Group& group, std::span<float> values, std::vector<PairwiseStep> steps,
                                   int tag)
    : values_(values), steps_(std::move(steps)), tag_(tag) {
  for (PairwiseStep& step : steps_) step.peer = group.members[static_cast<std::size_t>(step.peer)];
}

int PairwiseExchange::peer() const { return steps_.empty() ? 0 : steps_[std::min(current_, steps_.size() - 1)].peer; }

void PairwiseExchange::post(Transport& transport, std::vector<float>& scratch) {
  const PairwiseStep& step = steps_[current_];
  if (const auto in = part(step.in); !in.empty()) {
    if (step.arrival != Arrival::kCopy && scratch.size() < in.size()) scratch.resize(in.size());
    const auto target = step.arrival == Arrival::kCopy ? in : std::span(scratch).first(in.size());
    receiving_ = transport.receive(step.peer, tag_, std::as_writable_bytes(target));
  }
  if (step.out.size() > 0) sending_ = transport.send(step.peer, tag_, std::as_bytes(part(step.out)));
  posted_ = true;
}

bool PairwiseExchange::arrived() {
  if (receiving_ && receiving_->done()) receiving_.reset();
  if (sending_ && sending_->done()) sending_.reset();
  return !receiving_ && !sending_;
}

void PairwiseExchange::take(const PairwiseStep& step, std::span<const float> received) {
  const auto in = part(step.in);
  float* own = in.data();
  const std::size_t count = in.size();
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
