// ExchangeCommunicator: a Communicator made of point-to-point messages, so that every wait can name the peer it is for.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "runtime/comm/communicator.h"
#include "runtime/comm/progress_engine.h"
#include "runtime/comm/sum_queue.h"

namespace tadapt {

class ExchangeCommunicator : public Communicator {
 public:
  /// The group of all ranks of the engine's transport. All ranks make it at the same point of their program.
  explicit ExchangeCommunicator(ProgressEngine& engine);
  ~ExchangeCommunicator() override;

  int rank() const override { return group_.rank; }
  int size() const override { return group_.size(); }
  void barrier(std::string_view what) override;
  std::vector<double> all_gather(std::span<const double> values, std::string_view what) override;
  std::vector<std::string> all_gather_text(std::string_view text, std::string_view what) override;
  std::vector<std::string> all_to_all_text(std::vector<std::string> texts, std::string_view what) override;
  std::string broadcast_text(std::string_view text, int root, std::string_view what) override;
  void send(const Tensor& values, int to, std::string_view what) override;
  void receive(const Tensor& values, int from, std::string_view what) override;
  std::unique_ptr<PendingExchange> start(Collective collective, Tensor values, std::string label) override;
  std::unique_ptr<Communicator> split(int color, int key, std::string_view what) override;

 private:
  struct Outgoing {
    int to;  ///< rank of this group
    std::span<const std::byte> bytes;
  };
  struct Incoming {
    int from;
    std::span<std::byte> bytes;
  };
  ExchangeCommunicator(ProgressEngine& engine, Group group, int id);

  int next_tag();
  int message_tag() const;
  int member(int rank) const { return group_.members[static_cast<std::size_t>(rank)]; }
  void send(Outgoing out, int tag, std::string_view what);
  void receive(Incoming in, int tag, std::string_view what);
  void exchange(Outgoing out, Incoming in, int tag, std::string_view what);
  std::vector<std::byte> gather_bytes(std::span<const std::byte> mine, const std::vector<std::size_t>& sizes,
                                      std::string_view what);
  std::vector<PairwiseExchange> pieces(Collective collective, std::span<float> values);
  void broadcast_bytes(std::span<std::byte> bytes, int root, std::string_view what);

  ProgressEngine& engine_;
  Group group_;
  int id_;
  unsigned operations_ = 0;
  std::shared_ptr<SumQueue> sums_;
};

}  // namespace tadapt
