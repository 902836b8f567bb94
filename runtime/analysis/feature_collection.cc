#include "runtime/analysis/feature_collection.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <future>

#include "runtime/analysis/partial_results.h"
#include "runtime/train/agreement.h"
#include "runtime/train/progress.h"

namespace tadapt {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

std::vector<LayerRecords> empty_records(const CollectionJob& job) {
  std::vector<LayerRecords> records;
  for (const auto& [layer, features] : job.source.layers())
    records.emplace_back(layer, features, static_cast<std::int64_t>(job.corpus.totals().by_domain.size()), job.records);
  return records;
}

LayerRecords empty_like(const LayerRecords& layer, const RecordOptions& options) {
  return {layer.layer(), layer.features(), layer.domains(), options};
}

/// A stop that all ranks know of.
struct Stopped {};

/// One rank's way through its units.
class Pass {
 public:
  Pass(const CollectionJob& job, const RunEnvironment& environment)
      : job_(job),
        environment_(environment),
        records_(empty_records(job)),
        partial_(environment, job.directory, job.identity, records_),
        progress_(job.name, "tokens", job.corpus.totals().tokens, tokens_of(partial_.found()), job.progress_seconds,
                  environment.print),
        host_(Context::cpu(environment.context.threads())),
        tokens_before_(tokens_of(partial_.found())) {}

  std::vector<LayerRecords> run() {
    const std::vector<IndexSet::Range> units = partial_.found().missing(job_.corpus.size(), job_.unit);
    const auto ranks = static_cast<std::size_t>(environment_.world.size());
    for (auto i = static_cast<std::size_t>(environment_.world.rank()); i < units.size(); i += ranks) {
      for (std::int64_t index = units[i].first; index < units[i].second; ++index) append(index);
      flush();
    }
    while (meet(0.0)) environment_.heartbeat("waiting for other ranks' features");
    save();
    return std::move(records_);
  }

  void save() {
    agree(environment_.world, [&] { partial_.save(); });
  }

 private:
  std::int64_t tokens_of(const IndexSet& set) const {
    std::int64_t tokens = 0;
    for (const auto& [begin, end] : set.ranges())
      for (std::int64_t index = begin; index < end; ++index)
        tokens += static_cast<std::int64_t>(job_.corpus.places(index).size());
    return tokens;
  }

  void append(std::int64_t index) {
    const TokenSequence sequence = job_.corpus.sequence(index);
    if (batch_.tokens() > 0 && batch_.tokens() + static_cast<std::int64_t>(sequence.ids.size()) > job_.batch_tokens)
      flush();
    if (batch_.tokens() == 0) first_ = index;
    batch_.append(sequence.ids);
    places_.append(job_.corpus.number(index), sequence.domain, job_.corpus.places(index));
    job_.contrast.mark(places_);
  }

  /// Conversations of a batch are consecutive.
  void flush() {
    if (batch_.tokens() == 0) return;
    job_.source.run(batch_, [&](Context& context, int layer, const Tensor& activations) {
      take(*std::ranges::find(records_, layer, &LayerRecords::layer), context, activations);
    });
    finish_adding();
    partial_.add(first_, first_ + batch_.sequences());
    tokens_ += batch_.tokens();
    batch_.clear();
    places_.clear();
    environment_.heartbeat("collecting features");
    if (seconds_since(last_save_) >= job_.save_seconds) {
      partial_.save();
      last_save_ = Clock::now();
    }
    if (seconds_since(last_meeting_) >= job_.meeting_seconds) meet(1.0);
  }

  /// Beside a device, which goes on with the next layer meanwhile; on the CPU the model's pass has all threads.
  void take(LayerRecords& records, Context& context, const Tensor& activations) {
    turn_ = 1 - turn_;
    const FeaturePairs pairs = pairs_[turn_].gather(context, activations);
    finish_adding();
    if (context.device() == Device::kCpu) return records.add(host_, pairs, places_);
    adding_ = std::async(std::launch::async, [this, &records, pairs] { records.add(host_, pairs, places_); });
  }

  void finish_adding() {
    if (adding_.valid()) adding_.get();
  }

  /// Whether a rank has work left. Often enough that none waits long for another and all stop together.
  bool meet(double working) {
    const double mine[] = {working, environment_.stop_requested() ? 1.0 : 0.0, static_cast<double>(tokens_)};
    const std::vector<double> all = environment_.world.all_gather(mine, "progress of the collection");
    double sums[std::size(mine)] = {};
    for (std::size_t i = 0; i < all.size(); ++i) sums[i % std::size(mine)] += all[i];
    if (sums[1] > 0.0) throw Stopped();
    progress_.update(tokens_before_ + static_cast<std::int64_t>(sums[2]));
    last_meeting_ = Clock::now();
    return sums[0] > 0.0;
  }

  const CollectionJob& job_;
  const RunEnvironment& environment_;
  std::vector<LayerRecords> records_;
  PartialResults partial_;
  ProgressReport progress_;
  TokenBatch batch_;
  BatchPlaces places_;
  Context host_;
  std::array<ActivePairs, 2> pairs_;
  std::size_t turn_ = 0;
  std::int64_t first_ = 0, tokens_before_ = 0, tokens_ = 0;
  Clock::time_point last_save_ = Clock::now(), last_meeting_ = Clock::now();
  std::future<void> adding_;  // last: what it works on outlives it
};

}  // namespace

std::optional<std::vector<LayerRecords>> collect(const CollectionJob& job, const RunEnvironment& environment) {
  Pass pass(job, environment);
  try {
    return pass.run();
  } catch (const Stopped&) {  // on all ranks in one meeting
    pass.save();
    return std::nullopt;
  }
}

std::optional<LayerRecords> join_layers(std::vector<LayerRecords>& records, std::size_t first, const CollectionJob& job,
                                        const RunEnvironment& environment) {
  Communicator& world = environment.world;
  std::vector<std::string> texts(static_cast<std::size_t>(world.size()));
  const std::size_t count = std::min(texts.size(), records.size() - first);
  for (std::size_t i = 0; i < count; ++i) {
    texts[i] = records[first + i].encoded();
    records[first + i] = empty_like(records[first + i], job.records);
  }
  const std::vector<std::string> parts = world.all_to_all_text(std::move(texts), "records of features");
  const auto rank = static_cast<std::size_t>(world.rank());
  if (rank >= count) return std::nullopt;
  LayerRecords joined = empty_like(records[first + rank], job.records);
  for (const std::string& part : parts) joined.merge(part, "another rank");
  return joined;
}

}  // namespace tadapt
