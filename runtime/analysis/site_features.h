// What the feature site says of single features: chunks of a few neighbours each, and the tokens around examples.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "runtime/analysis/feature_store.h"
#include "runtime/analysis/site_graphs.h"
#include "runtime/analysis/site_labels.h"

namespace tadapt {

inline constexpr std::int64_t kFeaturesAChunk = 128;
inline constexpr std::int64_t kTokensAChunk = 32768;

/// Features [first, first + kFeaturesAChunk) of the layer: counts, lens, examples, edges and labels. An example has its
/// conversation's place in sequences_chunk, and the activations near it. DataError naming an example that lies outside
/// its conversation.
nlohmann::ordered_json features_chunk(const StoredLayer& layer, std::int64_t first, const StoredTokens& tokens,
                                      const SiteLabels& labels, const GraphNeighbours& neighbours);

/// Of each conversation: number, line of the corpus file, domain, and where its tokens begin.
nlohmann::ordered_json sequences_chunk(const StoredTokens& tokens);

/// The text of every token, as people are shown it.
nlohmann::ordered_json vocabulary_chunk(const StoredTokens& tokens);

/// Ids [first, first + kTokensAChunk) of all conversations, one after another.
nlohmann::ordered_json tokens_chunk(const StoredTokens& tokens, std::int64_t first);

}  // namespace tadapt
