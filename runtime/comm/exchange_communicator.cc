// Collectives in logarithmically many rounds of point-to-point messages.
#include "runtime/comm/exchange_communicator.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>
#include <utility>

namespace tadapt {
namespace {
// A tag is the communicator's number and a counter of its operations. The counter may wrap round: messages of one tag
// between two ranks stay in order, and no rank can be a whole turn ahead of another.
constexpr int kCounterBits = 16;
constexpr int kCommunicators = 1 << (Transport::kTagBits - kCounterBits);

class ExchangedSum : public PendingExchange {
 public:
  ExchangedSum(ProgressEngine& engine, std::shared_ptr<SumQueue> queue, std::shared_ptr<RunningSum> sum)
      : engine_(engine), queue_(std::move(queue)), sum_(std::move(sum)) {}
  ~ExchangedSum() override {
    if (!done()) engine_.change([&] { queue_->abandon(sum_.get()); });
  }
  bool done() const override { return sum_->failed || sum_->pieces_left == 0; }
  void wait() override {
    std::uint64_t moves = sum_->moves;
    engine_.wait({sum_->label, [&] { return peer(); }}, [&] {
      if (done()) return Progress::kDone;
      return std::exchange(moves, sum_->moves) == moves ? Progress::kIdle : Progress::kMoved;
    });
    if (sum_->failed) throw CommError("{}", sum_->failure);
  }

 private:
  int peer() const {
    int peer = 0;
    engine_.change([&] { peer = queue_->peer_of(sum_.get()); });
    return peer;
  }
  ProgressEngine& engine_;
  std::shared_ptr<SumQueue> queue_;
  std::shared_ptr<RunningSum> sum_;
};

Group everyone(const Transport& transport) {
  Group group{std::vector<int>(static_cast<std::size_t>(transport.size())), transport.rank()};
  std::iota(group.members.begin(), group.members.end(), 0);
  return group;
}
}  // namespace

ExchangeCommunicator::ExchangeCommunicator(ProgressEngine& engine)
    : ExchangeCommunicator(engine, everyone(engine.transport()), engine.next_id()) {
  engine_.raise_next_id(id_ + 1);
}

ExchangeCommunicator::ExchangeCommunicator(ProgressEngine& engine, Group group, int id)
    : engine_(engine), group_(std::move(group)), id_(id), sums_(std::make_shared<SumQueue>(engine.transport())) {
  if (id_ >= kCommunicators) throw CommError("more than {} communicators were made in one process", kCommunicators);
  engine_.add(sums_);
}

ExchangeCommunicator::~ExchangeCommunicator() { engine_.remove(sums_.get()); }

int ExchangeCommunicator::next_tag() {
  return id_ << kCounterBits | static_cast<int>(operations_++ % ((1u << kCounterBits) - 1));
}

/// Of values that one rank sends another: the one tag that next_tag() never gives.
int ExchangeCommunicator::message_tag() const { return id_ << kCounterBits | ((1 << kCounterBits) - 1); }

void ExchangeCommunicator::send(const Tensor& values, int to, std::string_view what) {
  send({to, std::as_bytes(values.span<float>())}, message_tag(), what);
}

void ExchangeCommunicator::receive(const Tensor& values, int from, std::string_view what) {
  receive({from, std::as_writable_bytes(values.span<float>())}, message_tag(), what);
}

void ExchangeCommunicator::send(Outgoing out, int tag, std::string_view what) {
  std::unique_ptr<Transfer> sending;
  engine_.wait({what, [&] { return member(out.to); }}, [&] {
    if (!sending) sending = engine_.transport().send(member(out.to), tag, out.bytes);
    return sending->done() ? Progress::kDone : Progress::kIdle;
  });
}

void ExchangeCommunicator::receive(Incoming in, int tag, std::string_view what) {
  std::unique_ptr<Transfer> receiving;
  engine_.wait({what, [&] { return member(in.from); }}, [&] {
    if (!receiving) receiving = engine_.transport().receive(member(in.from), tag, in.bytes);
    return receiving->done() ? Progress::kDone : Progress::kIdle;
  });
}

void ExchangeCommunicator::exchange(Outgoing out, Incoming in, int tag, std::string_view what) {
  std::unique_ptr<Transfer> sending, receiving;
  bool received = false;
  const auto peer = [&] { return member(received ? out.to : in.from); };
  engine_.wait({what, peer}, [&] {
    if (!receiving) receiving = engine_.transport().receive(member(in.from), tag, in.bytes);
    if (!sending) sending = engine_.transport().send(member(out.to), tag, out.bytes);
    received = received || receiving->done();
    return received && sending->done() ? Progress::kDone : Progress::kIdle;
  });
}

void ExchangeCommunicator::barrier(std::string_view what) {
  const int tag = next_tag();
  for (int distance = 1; distance < size(); distance *= 2) {
    exchange({(rank() + distance) % size(), {}}, {(rank() - distance + size()) % size(), {}}, tag, what);
  }
}

// Bruck's algorithm: after the round at distance d a rank holds the blocks of ranks r, r + 1, …, r + 2d − 1.
std::vector<std::byte> ExchangeCommunicator::gather_bytes(std::span<const std::byte> mine,
                                                          const std::vector<std::size_t>& sizes,
                                                          std::string_view what) {
  const auto bytes_of = [&](int first, int count) {
    std::size_t bytes = 0;
    for (int i = first; i < first + count; ++i) bytes += sizes[static_cast<std::size_t>(i % size())];
    return bytes;
  };
  std::vector<std::byte> turned(bytes_of(0, size()));
  std::copy(mine.begin(), mine.end(), turned.begin());
  const int tag = next_tag();
  for (int distance = 1; distance < size(); distance *= 2) {
    const int count = std::min(distance, size() - distance);
    const auto held = std::span(turned).first(bytes_of(rank(), count));
    const auto more = std::span(turned).subspan(bytes_of(rank(), distance), bytes_of(rank() + distance, count));
    exchange({(rank() - distance + size()) % size(), held}, {(rank() + distance) % size(), more}, tag, what);
  }
  const auto first_block = static_cast<std::ptrdiff_t>(bytes_of(rank(), size() - rank()));
  std::rotate(turned.begin(), turned.begin() + first_block, turned.end());
  return turned;
}

std::vector<double> ExchangeCommunicator::all_gather(std::span<const double> values, std::string_view what) {
  const std::vector<std::size_t> sizes(static_cast<std::size_t>(size()), values.size_bytes());
  const auto bytes = gather_bytes(std::as_bytes(values), sizes, what);
  std::vector<double> all(bytes.size() / sizeof(double));
  if (!all.empty()) std::memcpy(all.data(), bytes.data(), bytes.size());
  return all;
}

std::vector<std::string> ExchangeCommunicator::all_gather_text(std::string_view text, std::string_view what) {
  const double my_size = static_cast<double>(text.size());
  std::vector<std::size_t> sizes;
  for (const double bytes : all_gather(std::span(&my_size, 1), what)) sizes.push_back(static_cast<std::size_t>(bytes));
  const auto bytes = gather_bytes(std::as_bytes(std::span(text)), sizes, what);
  std::vector<std::string> texts;
  const char* at = reinterpret_cast<const char*>(bytes.data());
  for (const std::size_t length : sizes) {
    texts.emplace_back(at, length);
    at += length;
  }
  return texts;
}

std::vector<std::string> ExchangeCommunicator::all_to_all_text(std::vector<std::string> texts, std::string_view what) {
  require_shape(static_cast<int>(texts.size()) == size(), "'{}': {} texts in a group of {}", what, texts.size(),
                size());
  std::vector<std::string> received(texts.size());
  received[static_cast<std::size_t>(rank())] = std::move(texts[static_cast<std::size_t>(rank())]);
  const int tag = next_tag();
  for (int distance = 1; distance < size(); ++distance) {
    const int to = (rank() + distance) % size(), from = (rank() - distance + size()) % size();
    std::string& text = texts[static_cast<std::size_t>(to)];
    const std::uint64_t length = text.size();
    std::uint64_t expected = 0;
    exchange({to, std::as_bytes(std::span(&length, 1))}, {from, std::as_writable_bytes(std::span(&expected, 1))}, tag,
             what);
    std::string& mine = received[static_cast<std::size_t>(from)];
    mine.resize(expected);
    exchange({to, std::as_bytes(std::span(text))}, {from, std::as_writable_bytes(std::span(mine))}, tag, what);
    text = {};
  }
  return received;
}

// A binomial tree over ranks counted from the root.
void ExchangeCommunicator::broadcast_bytes(std::span<std::byte> bytes, int root, std::string_view what) {
  const int tag = next_tag();
  const int place = (rank() - root + size()) % size();
  const auto rank_at = [&](int other_place) { return (other_place + root) % size(); };
  const auto distances = std::bit_ceil(static_cast<unsigned>(size()));
  const int received_at = place == 0 ? static_cast<int>(distances) : place & -place;
  if (place != 0) receive({rank_at(place - received_at), bytes}, tag, what);
  for (int distance = received_at / 2; distance > 0; distance /= 2) {
    if (place + distance < size()) send({rank_at(place + distance), bytes}, tag, what);
  }
}

std::string ExchangeCommunicator::broadcast_text(std::string_view text, int root, std::string_view what) {
  require_shape(root >= 0 && root < size(), "'{}': root {} of a group of {}", what, root, size());
  std::uint64_t length = text.size();
  broadcast_bytes(std::as_writable_bytes(std::span(&length, 1)), root, what);
  std::string all = rank() == root ? std::string(text) : std::string(length, '\0');
  if (length > 0) broadcast_bytes(std::as_writable_bytes(std::span(all)), root, what);
  return all;
}

std::vector<PairwiseExchange> ExchangeCommunicator::pieces(Collective collective, std::span<float> values) {
  std::vector<PairwiseExchange> pieces;
  for (PlannedPiece& piece : plan_pieces(collective, rank(), size(), static_cast<std::int64_t>(values.size())))
    pieces.emplace_back(
        group_,
        values.subspan(static_cast<std::size_t>(piece.values.begin), static_cast<std::size_t>(piece.values.size())),
        std::move(piece.steps), next_tag());
  return pieces;
}

std::unique_ptr<PendingExchange> ExchangeCommunicator::start(Collective collective, Tensor values, std::string label) {
  require_power_of_two(size(), label);
  auto sum = std::make_shared<RunningSum>();
  sum->label = std::move(label);
  const auto numbers = values.empty() ? std::span<float>() : values.span<float>();
  if (size() > 1 && !numbers.empty()) {
    std::vector<PairwiseExchange> cut = pieces(collective, numbers);
    engine_.change([&] { sums_->push(sum, std::move(cut)); });
  }
  return std::make_unique<ExchangedSum>(engine_, sums_, std::move(sum));
}

std::unique_ptr<Communicator> ExchangeCommunicator::split(int color, int key, std::string_view what) {
  const double mine[] = {static_cast<double>(color), static_cast<double>(key), static_cast<double>(engine_.next_id())};
  const auto all = all_gather(mine, what);
  std::vector<std::pair<double, int>> order;  // (key, rank) of those with this rank's color
  int id = 0;
  for (int other = 0; other < size(); ++other) {
    const auto at = static_cast<std::size_t>(3 * other);
    id = std::max(id, static_cast<int>(all[at + 2]));
    if (all[at] == mine[0]) order.emplace_back(all[at + 1], other);
  }
  std::sort(order.begin(), order.end());
  Group group;
  for (const auto& [other_key, other] : order) {
    if (other == rank()) group.rank = group.size();
    group.members.push_back(member(other));
  }
  engine_.raise_next_id(id + 1);
  return std::unique_ptr<Communicator>(new ExchangeCommunicator(engine_, std::move(group), id));
}

}  // namespace tadapt
