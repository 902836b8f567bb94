// Running the pieces of pending sums.
#include "runtime/comm/sum_queue.h"

#include <algorithm>

namespace tadapt {

void SumQueue::push(const std::shared_ptr<RunningSum>& sum, std::vector<PairwiseExchange> pieces) {
  sum->pieces_left = static_cast<std::int64_t>(pieces.size());
  for (PairwiseExchange& piece : pieces) pieces_.push_back({sum, std::move(piece), {}});
}

void SumQueue::abandon(const RunningSum* sum) {
  std::erase_if(pieces_, [&](const Piece& piece) { return piece.sum.get() == sum; });
}

int SumQueue::peer_of(const RunningSum* sum) const {
  const auto first = std::find_if(pieces_.begin(), pieces_.end(), [&](const Piece& p) { return p.sum.get() == sum; });
  return first == pieces_.end() ? transport_.rank() : first->exchange.peer();
}

Progress SumQueue::advance_piece(Piece& piece) {
  if (piece.scratch.empty() && !free_scratch_.empty()) {
    piece.scratch = std::move(free_scratch_.back());
    free_scratch_.pop_back();
  }
  const Progress progress = piece.exchange.advance(transport_, piece.scratch);
  if (progress != Progress::kIdle) ++piece.sum->moves;
  return progress;
}

bool SumQueue::advance() try {
  bool moved = false;
  int under_way = 0;
  for (auto piece = pieces_.begin(); piece != pieces_.end() && under_way < kTogether;) {
    const Progress progress = advance_piece(*piece);
    moved = moved || progress != Progress::kIdle;
    if (progress != Progress::kDone) {
      ++under_way;
      ++piece;
      continue;
    }
    if (!piece->scratch.empty()) free_scratch_.push_back(std::move(piece->scratch));
    --piece->sum->pieces_left;
    piece = pieces_.erase(piece);
  }
  return moved;
} catch (const std::exception& error) {
  fail(error.what());
  return true;
}

void SumQueue::fail(const std::string& reason) {
  for (const Piece& piece : pieces_) {
    if (piece.sum->failed) continue;
    piece.sum->failure = fmt::format("rank {} of {}, peer {}, in '{}': {}", transport_.rank(), transport_.size(),
                                     peer_of(piece.sum.get()), piece.sum->label, reason);
    piece.sum->failed = true;
  }
  pieces_.clear();
}

}  // namespace tadapt
