#include "runtime/model/generation.h"

#include <algorithm>
#include <deque>

#include "kernels/core/memory.h"
#include "runtime/adapter/grown.h"
#include "runtime/model/segments.h"

namespace tadapt {
namespace {

/// A pass over fewer rows than this costs about as much as one over so many.
constexpr std::int64_t kPassRows = 128;
/// Places that stay empty until a pass over prompts is filled: less than one of so many.
constexpr std::size_t kManyPlaces = 16;

/// A sequence that is being continued.
struct Sequence {
  std::size_t request;
  std::vector<std::int32_t> ids;    ///< prompt and response so far; the newest token's keys are not cached yet
  std::vector<std::int32_t> pages;  ///< of the cache, in order of position

  std::int32_t slot(std::size_t position) const {
    constexpr auto kTokens = static_cast<std::size_t>(kPageTokens);
    return pages[position / kTokens] * static_cast<std::int32_t>(kPageTokens) +
           static_cast<std::int32_t>(position % kTokens);
  }
};

/// Host numbers of a pass where a context computes; what they were copied to lasts until the next ones.
class PassNumbers {
 public:
  template <class T>
  Tensor place(Context& context, std::vector<T>& numbers, std::int64_t rows, std::int64_t columns) {
    const Tensor host = Tensor::of(std::span(numbers), {rows, columns});
    if (context.device() == Device::kCpu) return host;
    const Tensor there = grown(context, memory_, DTypeOf<T>::value, rows, columns);
    copy(context, host, there);
    return there;
  }

 private:
  Buffer memory_;
};

class Generation {
 public:
  Generation(Context& context, const GenerationModel& model, std::span<const GenerationRequest> requests,
             const GenerationOptions& options, const GenerationListener& listener)
      : context_(context),
        model_(model),
        requests_(requests),
        options_(options),
        listener_(listener),
        reported_(requests.size(), 0),
        runner_(context, model.decoder),
        cache_(context, model.decoder.config(), cache_type(), cache_pages()) {
    for (std::size_t i = 0; i < requests.size(); ++i) waiting_.push_back(i);
    if (pads()) padding_.pages.push_back(cache_.take());
  }

  void run() {
    while (!waiting_.empty() || !active_.empty()) {
      admit();
      if (!active_.empty()) advance();
    }
  }

 private:
  const DecoderConfig& config() const { return model_.decoder.config(); }
  bool pads() const { return context_.device() != Device::kCpu; }
  /// The CPU's attention is float32 throughout; a GPU's takes what its products take.
  DType cache_type() const { return pads() ? model_.decoder.compute() : DType::kFloat32; }

  std::int64_t cache_pages() const {
    std::int64_t longest = 1;
    for (std::size_t i = 0; i < requests_.size(); ++i) {
      const auto prompt = static_cast<std::int64_t>(requests_[i].prompt.size());
      require_shape(prompt > 0, "generation: request {} has an empty prompt", i);
      if (prompt >= config().max_positions)
        throw ConfigError("generation: {}: {} tokens leave no room for a response: the model has {} positions ({})",
                          request_name(i), prompt, config().max_positions, config().file.string());
      longest = std::max(longest, std::min(prompt + options_.max_new_tokens, config().max_positions));
    }
    const std::int64_t fitting = options_.cache_bytes / KeyValueCache::bytes_per_page(config(), cache_type());
    const std::int64_t useful =
        std::min(options_.batch_sequences, static_cast<std::int64_t>(requests_.size())) * pages_for(longest);
    constexpr std::int64_t kMostPages = (std::int64_t{1} << 31) / kPageTokens - 1;
    return std::clamp(std::min(fitting, kMostPages), pages_for(longest), std::max(useful, pages_for(longest))) +
           (pads() ? 1 : 0);
  }

  std::string request_name(std::size_t request) const {
    const std::string& name = requests_[request].name;
    return name.empty() ? fmt::format("request {}", request) : name;
  }

  std::int64_t pages_of_prompt(std::size_t request) const {
    return pages_for(static_cast<std::int64_t>(requests_[request].prompt.size()));
  }

  void release(Sequence& sequence) {
    for (const std::int32_t page : sequence.pages) cache_.give_back(page);
    sequence.pages.clear();
  }

  /// Takes requests from the front of the line while there is room, and runs their prompts.
  void admit() {
    for (std::size_t count = next_group(); count > 0; count = next_group()) {
      std::vector<Sequence> newcomers;
      for (std::size_t i = 0; i < count; ++i) {
        const std::vector<std::int32_t>& prompt = requests_[waiting_.front()].prompt;
        Sequence sequence{.request = waiting_.front(), .ids = prompt, .pages = {}};
        for (std::int64_t page = 0; page < pages_of_prompt(waiting_.front()); ++page)
          sequence.pages.push_back(cache_.take());
        waiting_.pop_front();
        newcomers.push_back(std::move(sequence));
      }
      prefill(std::move(newcomers));
    }
  }

  /// How many of those who wait begin in the next pass. While others run it is none until they fill a pass or are many.
  std::size_t next_group() const {
    const std::int64_t most_tokens = pads() ? 1 : active_.empty() ? options_.prefill_tokens : kPassRows;
    std::int64_t tokens = 0, free_pages = cache_.free_pages();
    std::size_t count = 0;
    for (; count < waiting_.size(); ++count) {
      const std::size_t request = waiting_[count], running = active_.size() + count;
      tokens += static_cast<std::int64_t>(requests_[request].prompt.size());
      if (count > 0 && tokens > most_tokens) return count;
      // One page more for everybody, so that not each newcomer pushes another out at once.
      free_pages -= pages_of_prompt(request);
      const bool has_pages = running == 0 || free_pages > static_cast<std::int64_t>(running);
      if (!has_pages || static_cast<std::int64_t>(running) == options_.batch_sequences) break;
    }
    const bool is_rest = count == waiting_.size();
    return is_rest || kManyPlaces * count >= active_.size() ? count : 0;
  }

  void prefill(std::vector<Sequence> newcomers) {
    TokenBatch batch;
    std::vector<std::int32_t> slots;
    std::vector<std::int64_t> last_rows;
    for (const Sequence& sequence : newcomers) {
      batch.append(sequence.ids);
      for (std::size_t position = 0; position < sequence.ids.size(); ++position)
        slots.push_back(sequence.slot(position));
      last_rows.push_back(batch.tokens() - 1);
    }
    const CachedBatch cached{cache_, slot_numbers_.place(context_, slots, batch.tokens(), 1).reshaped({batch.tokens()}),
                             Tensor()};
    accept(std::move(newcomers), run_pass(batch, cached, last_rows));
  }

  /// Gives every sequence room for its newest token; without enough the youngest go back to the front of the line.
  void make_room() {
    for (std::size_t i = 0; i < active_.size(); ++i) {
      while (i < active_.size() &&
             active_[i].pages.size() * static_cast<std::size_t>(kPageTokens) < active_[i].ids.size()) {
        if (cache_.free_pages() > 0) {
          active_[i].pages.push_back(cache_.take());
          continue;
        }
        waiting_.push_front(active_.back().request);
        release(active_.back());
        active_.pop_back();
      }
    }
  }

  /// One token more for every sequence.
  void advance() {
    make_room();
    std::vector<const Sequence*> rows;
    for (const Sequence& sequence : active_) rows.push_back(&sequence);
    if (pads()) rows.resize(static_cast<std::size_t>(options_.batch_sequences), &padding_);
    std::size_t columns = 1;
    for (const Sequence* sequence : rows) columns = std::max(columns, sequence->pages.size());
    TokenBatch batch;
    std::vector<std::int32_t> slots, tables;
    std::vector<std::int64_t> all_rows;
    for (const Sequence* sequence : rows) {
      all_rows.push_back(batch.tokens());
      batch.append(std::span(sequence->ids).last(1), static_cast<std::int32_t>(sequence->ids.size()) - 1);
      slots.push_back(sequence->slot(sequence->ids.size() - 1));
      tables.insert(tables.end(), sequence->pages.begin(), sequence->pages.end());
      tables.resize(static_cast<std::size_t>(batch.tokens()) * columns, 0);
    }
    const CachedBatch cached{
        cache_, slot_numbers_.place(context_, slots, batch.tokens(), 1).reshaped({batch.tokens()}),
        table_numbers_.place(context_, tables, batch.tokens(), static_cast<std::int64_t>(columns))};
    accept(std::exchange(active_, {}), run_pass(batch, cached, all_rows));
  }

  /// Logits [rows, V] of these rows of the batch.
  Tensor run_pass(const TokenBatch& batch, const CachedBatch& cached, std::span<const std::int64_t> rows) {
    const auto count = static_cast<std::int64_t>(rows.size());
    const Tensor logits = grown(context_, logits_, DType::kFloat32, count, config().vocabulary);
    const auto observe = [&](const Reading& reading) {
      const bool is_last = config().layers == 0 || reading.layer == config().layers - 1;
      if (!is_last || reading.point != ReadPoint::kBlockOut) return;
      const Tensor last = grown(context_, last_states_, DType::kFloat32, count, config().width);
      for (std::int64_t i = 0; i < count; ++i) {
        const std::int64_t row = rows[static_cast<std::size_t>(i)];
        copy(context_, reading.values.rows(row, row + 1), last.rows(i, i + 1));
      }
      model_.decoder.final_norm(context_, last, last);
      model_.decoder.logits(context_, last, logits);
    };
    const Segment segment{.splice = model_.splice, .begin = 0, .end = config().layers, .cached = &cached};
    runner_.run({&segment, 1}, batch, {.keep = {}, .observe = observe});
    return logits;
  }

  /// Draws the next token of each sequence from its row of logits; those that go on become active.
  void accept(std::vector<Sequence> sequences, const Tensor& logits) {
    const std::vector<std::int32_t> tokens = draw(sequences, logits);
    for (std::size_t i = 0; i < sequences.size(); ++i) take_token(sequences[i], tokens[i]);
    if (listener_.step) listener_.step(static_cast<std::int64_t>(sequences.size()));
  }

  std::vector<std::int32_t> draw(const std::vector<Sequence>& sequences, const Tensor& logits) {
    const std::int64_t rows = logits.size(0);
    std::vector<std::int64_t> draws(static_cast<std::size_t>(rows), 0);
    for (std::size_t i = 0; i < sequences.size(); ++i) {
      const RandomStream random(options_.seed, RandomPurpose::kGeneration, sequences[i].ids.size(),
                                requests_[sequences[i].request].sample);
      draws[i] = static_cast<std::int64_t>(random.bits64(0));
    }
    const Tensor tokens = grown(context_, tokens_, DType::kInt32, rows, 1).reshaped({rows});
    sample_tokens(context_, logits, draw_numbers_.place(context_, draws, rows, 1).reshaped({rows}), options_.rule,
                  tokens);
    return on_host<std::int32_t>(context_, tokens);
  }

  void take_token(Sequence& sequence, std::int32_t token) {
    const std::vector<std::int32_t>& prompt = requests_[sequence.request].prompt;
    if (token < 0)
      throw NonFiniteError("generation: {}: logits of position {} are not finite", request_name(sequence.request),
                           sequence.ids.size());
    if (std::ranges::find(options_.stop_tokens, token) != options_.stop_tokens.end())
      return finish(sequence, StopReason::kStopToken);
    sequence.ids.push_back(token);
    const std::size_t responded = sequence.ids.size() - prompt.size();
    if (std::size_t& reported = reported_[sequence.request]; responded > reported) {
      ++reported;
      if (listener_.token) listener_.token(sequence.request, token);
    }
    if (static_cast<std::int64_t>(responded) >= options_.max_new_tokens)
      return finish(sequence, StopReason::kNewTokens);
    if (static_cast<std::int64_t>(sequence.ids.size()) >= config().max_positions)
      return finish(sequence, StopReason::kPositions);
    active_.push_back(std::move(sequence));
  }

  void finish(Sequence& sequence, StopReason reason) {
    release(sequence);
    const auto prompt = static_cast<std::ptrdiff_t>(requests_[sequence.request].prompt.size());
    if (listener_.done)
      listener_.done(sequence.request, {.ids = {sequence.ids.begin() + prompt, sequence.ids.end()}, .reason = reason});
  }

  Context& context_;
  const GenerationModel& model_;
  std::span<const GenerationRequest> requests_;
  const GenerationOptions& options_;
  const GenerationListener& listener_;
  std::deque<std::size_t> waiting_;
  std::vector<std::size_t> reported_;  ///< tokens of each response that the listener has heard
  std::vector<Sequence> active_;       ///< oldest first
  Sequence padding_{.request = 0, .ids = {0}, .pages = {}};
  SegmentRunner runner_;
  KeyValueCache cache_;
  PassNumbers slot_numbers_, table_numbers_, draw_numbers_;
  Buffer logits_, last_states_, tokens_;
};

}  // namespace

const char* name(StopReason reason) {
  switch (reason) {
    case StopReason::kStopToken:
      return "stop_token";
    case StopReason::kNewTokens:
      return "max_new_tokens";
    case StopReason::kPositions:
      return "positions";
  }
  return "";
}

void generate(Context& context, const GenerationModel& model, std::span<const GenerationRequest> requests,
              const GenerationOptions& options, const GenerationListener& listener) {
  if (options.max_new_tokens < 1 || options.batch_sequences < 1)
    throw ConfigError("generation: {} new tokens of {} sequences; expected at least 1 of each", options.max_new_tokens,
                      options.batch_sequences);
  if (requests.empty()) return;
  Generation(context, model, requests, options, listener).run();
}

}  // namespace tadapt
