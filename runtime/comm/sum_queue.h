// SumQueue: the sums, scatters and gathers of one communicator that are under way, in pieces, a few pieces at a time.
#pragma once

#include <atomic>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "runtime/comm/communicator.h"
#include "runtime/comm/progress_engine.h"

namespace tadapt {

/// One of them; shared by the queue, which runs it, and the PendingExchange, which waits for it.
struct RunningSum {
  std::string label;
  std::atomic<std::int64_t> pieces_left = 0;
  std::atomic<std::uint64_t> moves = 0;
  std::atomic<bool> failed = false;
  std::string failure;  ///< written before `failed` is set
};

class SumQueue : public ProgressEngine::Work {
 public:
  explicit SumQueue(Transport& transport) : transport_(transport) {}

  // All of these are called with the engine's lock held.
  void push(const std::shared_ptr<RunningSum>& sum, std::vector<PairwiseExchange> pieces);
  void abandon(const RunningSum* sum);
  int peer_of(const RunningSum* sum) const;  ///< whom its first unfinished piece waits for
  bool advance() override;
  bool idle() const override { return pieces_.empty(); }

 private:
  /// Pieces whose messages are under way together: one travels while another is added.
  static constexpr int kTogether = 4;
  struct Piece {
    std::shared_ptr<RunningSum> sum;
    PairwiseExchange exchange;
    std::vector<float> scratch;
  };
  Progress advance_piece(Piece& piece);
  void fail(const std::string& reason);

  Transport& transport_;
  std::list<Piece> pieces_;
  std::vector<std::vector<float>> free_scratch_;
};

}  // namespace tadapt
