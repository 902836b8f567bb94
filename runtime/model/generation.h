// Generation: continuing prompts token by token, many sequences side by side.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "kernels/sampling.h"
#include "runtime/model/splice.h"

namespace tadapt {

struct GenerationOptions {
  SamplingRule rule{.temperature = 0.7f, .top_p = 1.0};
  std::int64_t max_new_tokens = 32768;
  std::uint64_t seed = 0;
  std::vector<std::int32_t> stop_tokens = {};  ///< any of them ends a response and is not part of it
  std::int64_t batch_sequences = 128;          ///< side by side, at most
  /// For keys and values of earlier tokens; in any case room for one sequence of full length.
  std::int64_t cache_bytes = std::int64_t{2} << 30;
  std::int64_t prefill_tokens = 4096;  ///< of prompts in the first pass, at most; a longer prompt runs alone
};

struct GenerationRequest {
  std::vector<std::int32_t> prompt;  ///< at least one token
  std::uint64_t sample = 0;          ///< number of the stream of draws, below 2^48
  std::string name = {};             ///< for messages; else its number
};

enum class StopReason { kStopToken, kNewTokens, kPositions };
const char* name(StopReason reason);  ///< "stop_token", "max_new_tokens", "positions"

struct Generated {
  std::vector<std::int32_t> ids;  ///< without the stop token
  StopReason reason = StopReason::kStopToken;
};

/// Whose continuation it is: a decoder's weights under a splice.
struct GenerationModel {
  const Decoder& decoder;
  Splice splice;
};

struct GenerationListener {
  std::function<void(std::size_t request, std::int32_t token)> token;  ///< of every response, once, in order
  std::function<void(std::size_t request, Generated generated)> done;  ///< in the order in which they end
  std::function<void(std::int64_t new_tokens)> step;                   ///< after each pass; may throw to stop
};

/// Continues every prompt until a stop token, max_new_tokens or the model's last position.
///
/// Prompts run as packed sequences; then all sequences advance by one token a pass, each attending to its own cached
/// keys and values. Sequences that end make room for the next prompts, which begin in groups that fill a pass. When the
/// cache is full the youngest sequence is put back and begins anew later, with the same tokens.
///
/// The token at position p of a sequence is drawn with RandomStream(seed, kGeneration, p, sample). On the CPU a
/// response is a function of model, prompt, rule, seed and sample alone, bit for bit: not of what runs beside it, nor
/// of batch or cache size. On a GPU, whose library chooses its product by the number of rows, passes are padded to
/// batch_sequences rows and prompts run one by one: there it depends on batch_sequences too, and on nothing else.
///
/// ConfigError naming request and both numbers when its prompt leaves no position for a response; NonFiniteError naming
/// request and position when logits are not finite.
void generate(Context& context, const GenerationModel& model, std::span<const GenerationRequest> requests,
              const GenerationOptions& options, const GenerationListener& listener);

}  // namespace tadapt
