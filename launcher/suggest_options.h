// Options for a new run that suit its models and corpus, and the disk and memory of this host.
#pragma once

#include <cstdint>

#include "data/file.h"
#include "runtime/train/run_options.h"

namespace tadapt {

/// What a run may use.
struct HostResources {
  std::uint64_t free_disk_bytes = 0;
  std::uint64_t memory_bytes = 0;
};

/// `inputs` names the models and the corpus. Chosen by their sizes: adapter.features, corpus.format and
/// max_sequence_tokens; cache.max_tokens and tokens_per_sequence, so that the cache leaves room for checkpoints on the
/// disk and still holds many sequences; cache.sequences_per_shard, so that a shard fits into memory beside the models
/// and there are some to hold out; train.batch_tokens and window_tokens, so that what the loader holds fits, and a pass
/// over the rows is many steps. The beginning of the corpus is read to know how long its sequences are. DataError when
/// it is no JSONL of conversations; the errors of load_decoder_config and Tokenizer::load.
RunOptions suggest_options(FileSystem& files, const RunOptions& inputs, const HostResources& host);

}  // namespace tadapt
