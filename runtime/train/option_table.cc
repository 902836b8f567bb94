#include "runtime/train/option_table.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "data/activation_cache.h"
#include "runtime/adapter/adapter.h"
#include "runtime/loss/loss.h"
#include "runtime/plan/machine_rates.h"
#include "runtime/train/device_choice.h"
#include "runtime/train/option_kinds.h"

namespace tadapt {
namespace {

using option_kinds::field;
using option_kinds::integer;
using option_kinds::number;
using option_kinds::number_or_auto;
using option_kinds::NumberRule;
using option_kinds::path;
using option_kinds::text;
using option_kinds::word;
using option_kinds::Words;
using Options = std::vector<Option>;

// Generous bounds, so that products of a few options stay far from the ends of 64 bits.
constexpr std::int64_t kMaxTokens = std::int64_t{1} << 44;
constexpr std::int64_t kMaxRows = std::int64_t{1} << 30;
constexpr std::int64_t kMaxSteps = std::int64_t{1} << 40;
constexpr int kMaxRanks = 1 << 20;

const NumberRule kPositive{"above 0", [](double value) { return value > 0; }};
const NumberRule kNotNegative{"of at least 0", [](double value) { return value >= 0; }};
const NumberRule kBelowOne{"of at least 0 and below 1", [](double value) { return value >= 0 && value < 1; }};
const NumberRule kFraction{"from 0 to 1", [](double value) { return value >= 0 && value <= 1; }};
const Words<DType> kComputeTypes{{"bf16", DType::kBFloat16}, {"fp32", DType::kFloat32}};

Words<std::string> adapter_words() {
  Words<std::string> words;
  for (const std::string& name : adapter_types()) words.emplace_back(name, name);
  return words;
}

Words<std::string> objective_words() {
  Words<std::string> words;
  for (const Objective& objective : objectives()) words.emplace_back(objective.name, objective.name);
  return words;
}

bool is_choice_of_layers(const std::string& value) {
  try {
    return value == "all" || !parse_layer_ranges(value).empty();
  } catch (const ConfigError&) {
    return false;
  }
}

bool is_list_of_numbers(const std::string& value) {
  try {
    return value.empty() || !parse_layer_ranges(value).empty();
  } catch (const ConfigError&) {
    return false;
  }
}

bool is_device(const std::string& value) {
  DeviceRequest request;
  return parse_device(value, request);
}

Options run_options() {
  return {
      path({"run.dir", "",
            "Run directory; empty: runs/NAME in the current folder, NAME being that of the configuration file."},
           field(&RunOptions::dir)),
      text({"run.layers", "", "Layers to capture and train."}, field(&RunOptions::layers),
           "all or a list such as 0,3,5-8", is_choice_of_layers),
  };
}

Options model_options() {
  return {
      path({"model.base", "", "Directory of the base model (config.json, safetensors, tokenizer)."},
           field(&RunOptions::model, &ModelOptions::base)),
      path({"model.target", "", "Directory of the target: the model fine-tuned from the base."},
           field(&RunOptions::model, &ModelOptions::target)),
      word({"model.compute", "", "Operands of the products in the frozen models; sums are fp32."},
           field(&RunOptions::model, &ModelOptions::compute), kComputeTypes),
  };
}

Options corpus_options() {
  return {
      path({"corpus.train", "", "JSONL file that activations are captured from."},
           field(&RunOptions::corpus, &CorpusOptions::train)),
      path({"corpus.validation", "", "JSONL file for evaluation; empty: none."},
           field(&RunOptions::corpus, &CorpusOptions::validation)),
      word({"corpus.format", "", "Chat format that turns a conversation into text."},
           field(&RunOptions::corpus, &CorpusOptions::format),
           {{"deepseek", ChatFormat::kDeepseek}, {"qwen", ChatFormat::kQwen}, {"plain", ChatFormat::kPlain}}),
      integer({"corpus.max_sequence_tokens", "tokens", "Longer sequences are cut."},
              field(&RunOptions::corpus, &CorpusOptions::max_sequence_tokens), 1, kMaxRows),
  };
}

Options cache_options() {
  return {
      word({"cache.source", "",
            "disk: rows are captured once and kept in cache.dir; stream: nothing is kept, the models make the rows of "
            "each window when it is trained on, the same rows in the same order (train.order: window only)."},
           field(&RunOptions::cache, &CacheOptions::source),
           {{"disk", RowSource::kDisk}, {"stream", RowSource::kStream}}),
      path({"cache.dir", "", "Activation cache; empty: cache in run.dir. Captured first if it is not there."},
           field(&RunOptions::cache, &CacheOptions::dir)),
      word({"cache.rows", "", "Stored form of x and delta; int8 has one scale per row."},
           field(&RunOptions::cache, &CacheOptions::rows),
           {{"bf16", RowFormat::kBFloat16}, {"fp32", RowFormat::kFloat32}, {"int8", RowFormat::kInt8}}),
      integer({"cache.max_tokens", "tokens", "Rows kept in all; 0: no limit."},
              field(&RunOptions::cache, &CacheOptions::max_tokens), 0, kMaxTokens),
      integer({"cache.tokens_per_sequence", "tokens", "Rows kept of each sequence, drawn by train.seed; 0: all."},
              field(&RunOptions::cache, &CacheOptions::tokens_per_sequence), 0, kMaxRows),
      integer({"cache.drop_first_positions", "positions",
               "Positions left out at the start of each sequence (attention sinks)."},
              field(&RunOptions::cache, &CacheOptions::drop_first_positions), 0, kMaxRows),
      integer({"cache.sequences_per_shard", "sequences", "Sequences in one file of the cache."},
              field(&RunOptions::cache, &CacheOptions::sequences_per_shard), 1, kMaxRows),
      integer({"cache.chunk_bytes", "bytes", "Size aimed at for one HDF5 chunk."},
              field(&RunOptions::cache, &CacheOptions::chunk_bytes), 4096, kLargestChunkBytes),
      integer({"cache.held_out_shards", "shards",
               "The last shards, never trained on, that held-out metrics come from; at most all but one."},
              field(&RunOptions::cache, &CacheOptions::held_out_shards), 0, kMaxRows),
  };
}

Options adapter_options() {
  return {
      word({"adapter.type", "", "Kind of adapter."}, field(&RunOptions::adapter, &AdapterOptions::type),
           adapter_words()),
      integer({"adapter.features", "features", "Dictionary size F."},
              field(&RunOptions::adapter, &AdapterOptions::features), 1, std::int64_t{1} << 24),
      path({"adapter.init_from", "",
            "A run, checkpoint or export whose adapters training starts from; empty: from the hybrid model."},
           field(&RunOptions::adapter, &AdapterOptions::init_from)),
      number_or_auto({"adapter.sparse_below", "active features per token",
                      "Below this, gradients touch active features only; auto: the measured break-even; 0: never."},
                     field(&RunOptions::adapter, &AdapterOptions::sparse_below), kNotNegative),
  };
}

Options loss_options() {
  return {
      number({"loss.sparsity", "", "Weight lambda of the sparsity term."},
             field(&RunOptions::loss, &LossOptions::sparsity), kNotNegative),
      word({"loss.sparsity_scale", "",
            "relative: divided by the layer's scale s of delta; absolute: as it is; auto: relative where the objective "
            "is "
            "local, else absolute."},
           field(&RunOptions::loss, &LossOptions::sparsity_scale),
           {{"auto", SparsityScale::kAuto},
            {"relative", SparsityScale::kRelative},
            {"absolute", SparsityScale::kAbsolute}}),
      number({"loss.sparsity_initial", "of loss.sparsity", "Weight of the sparsity term at the first step."},
             field(&RunOptions::loss, &LossOptions::sparsity_initial), kNotNegative),
      number({"loss.sparsity_ramp_fraction", "of all steps", "Linear from that to the whole weight."},
             field(&RunOptions::loss, &LossOptions::sparsity_ramp_fraction), kFraction),
      word({"loss.recipe", "",
            "Bridging: what auto stands for below: code: 1, 2, 1, cutoffs from 0, NMSE averaged over states; paper: 1, "
            "1, "
            "1, cutoffs from 1, NMSE summed."},
           field(&RunOptions::loss, &LossOptions::recipe), {{"code", Recipe::kCode}, {"paper", Recipe::kPaper}}),
      number_or_auto({"loss.kl_adapter", "", "Bridging: weight of the adapter model's divergence from the target."},
                     field(&RunOptions::loss, &LossOptions::kl_adapter), kNotNegative),
      number_or_auto({"loss.kl_bridge", "", "Bridging: weight of each of the two bridges' divergences."},
                     field(&RunOptions::loss, &LossOptions::kl_bridge), kNotNegative),
      number_or_auto({"loss.residual_nmse", "", "Bridging: weight of the error of the residual states."},
                     field(&RunOptions::loss, &LossOptions::residual_nmse), kNotNegative),
      number({"loss.label", "", "Bridging: weight of the adapter model's own next-token loss."},
             field(&RunOptions::loss, &LossOptions::label), kNotNegative),
      word({"loss.backbone", "", "Bridging: whose embeddings, attention, norms and head the adapter model has."},
           field(&RunOptions::loss, &LossOptions::backbone),
           {{"target", Backbone::kTarget}, {"base", Backbone::kBase}}),
      integer({"loss.cutoffs", "cutoffs", "Bridging: layers at which bridges leave, drawn anew for each step."},
              field(&RunOptions::loss, &LossOptions::cutoffs), 1, 64),
      text({"loss.fixed_cutoffs", "", "Bridging: the same cutoffs in every step; empty: drawn."},
           field(&RunOptions::loss, &LossOptions::fixed_cutoffs), "empty or a list such as 3,14", is_list_of_numbers),
  };
}

Options optim_options() {
  return {
      number({"optim.learning_rate", "", "AdamW step size at the end of the warm-up."},
             field(&RunOptions::optim, &OptimOptions::learning_rate), kPositive),
      number({"optim.beta1", "", "AdamW decay of the first moment."}, field(&RunOptions::optim, &OptimOptions::beta1),
             kBelowOne),
      number({"optim.beta2", "", "AdamW decay of the second moment."}, field(&RunOptions::optim, &OptimOptions::beta2),
             kBelowOne),
      number({"optim.epsilon", "", "AdamW denominator offset."}, field(&RunOptions::optim, &OptimOptions::epsilon),
             kPositive),
      number({"optim.weight_decay", "", "AdamW decoupled weight decay."},
             field(&RunOptions::optim, &OptimOptions::weight_decay), kNotNegative),
      number({"optim.warmup_fraction", "of all steps", "Linear warm-up from 0; then cosine to 0."},
             field(&RunOptions::optim, &OptimOptions::warmup_fraction), kFraction),
      number({"optim.clip_norm", "",
              "Largest gradient norm, of one layer (local) or of all together (bridging); 0: no clipping."},
             field(&RunOptions::optim, &OptimOptions::clip_norm), kNotNegative),
      word({"optim.shard_state", "",
            "on: each data-parallel rank holds AdamW's moments of its part only, and updates that; results are the "
            "same, on "
            "several GPUs in grid.sum_order: fixed.",
            OnResume::kMayDiffer},
           field(&RunOptions::optim, &OptimOptions::shard_state), {{"off", ShardState::kOff}, {"on", ShardState::kOn}}),
  };
}

Options train_options() {
  return {
      word({"train.objective", "",
            "local: every layer by itself, from cached activations; bridging: end to end through the models."},
           field(&RunOptions::train, &TrainOptions::objective), objective_words()),
      word({"train.compute", "", "Operands of the products in the adapters; master weights are fp32."},
           field(&RunOptions::train, &TrainOptions::compute), kComputeTypes),
      integer({"train.batch_tokens", "tokens", "Local: rows in one optimiser step, over all ranks."},
              field(&RunOptions::train, &TrainOptions::batch_tokens), 1, kMaxRows),
      integer({"train.batch_sequences", "sequences", "Bridging: sequences in one optimiser step, over all ranks."},
              field(&RunOptions::train, &TrainOptions::batch_sequences), 1, kMaxRows),
      integer({"train.reduction_leaves", "parts",
               "Equal parts of a batch whose gradients join in a fixed tree: a power of two that divides "
               "train.batch_tokens; bridging takes the largest one below that divides train.batch_sequences."},
              field(&RunOptions::train, &TrainOptions::reduction_leaves), 1, std::int64_t{1} << 16),
      number({"train.epochs", "epochs", "Passes over the training rows, or sequences."},
             field(&RunOptions::train, &TrainOptions::epochs), kPositive),
      integer({"train.steps", "steps", "Optimiser steps; 0: from train.epochs."},
              field(&RunOptions::train, &TrainOptions::steps), 0, kMaxSteps),
      word({"train.order", "", "window: windows of consecutive rows, each shuffled; global: any row anywhere."},
           field(&RunOptions::train, &TrainOptions::order),
           {{"window", RowOrder::kWindow}, {"global", RowOrder::kGlobal}}),
      integer({"train.window_tokens", "tokens", "Rows shuffled together under train.order: window."},
              field(&RunOptions::train, &TrainOptions::window_tokens), 1, kMaxRows),
      integer({"train.seed", "", "Seed of initial weights, data order, token draws and cutoffs."},
              field(&RunOptions::train, &TrainOptions::seed), std::uint64_t{0}),
      integer({"train.evaluate_every_steps", "steps", "Between held-out metrics; 0: only at the end."},
              field(&RunOptions::train, &TrainOptions::evaluate_every_steps), 0, kMaxSteps),
      integer({"train.held_out_tokens", "tokens",
               "Held-out rows, or tokens of corpus.validation, looked at per evaluation, at most."},
              field(&RunOptions::train, &TrainOptions::held_out_tokens), 0, kMaxTokens),
      word({"train.recompute", "",
            "Bridging: hidden: the backward computes hidden values of MLPs and features again, which saves memory.",
            OnResume::kMayDiffer},
           field(&RunOptions::train, &TrainOptions::recompute),
           {{"none", Recompute::kNone}, {"hidden", Recompute::kHidden}}),
      integer({"train.logits_bytes", "bytes", "Bridging: memory for logits, of as many tokens at a time as fit.",
               OnResume::kMayDiffer},
              field(&RunOptions::train, &TrainOptions::logits_bytes), 1, std::int64_t{1} << 40),
      integer(
          {"train.dead_after_tokens", "tokens", "A feature that was not active in this many tokens counts as dead."},
          field(&RunOptions::train, &TrainOptions::dead_after_tokens), 1, kMaxTokens),
  };
}

Options checkpoint_options() {
  return {
      integer({"checkpoint.every_steps", "steps", "Between checkpoints; 0: only at the end and on signals.",
               OnResume::kMayDiffer},
              field(&RunOptions::checkpoint, &CheckpointOptions::every_steps), 0, kMaxSteps),
      integer({"checkpoint.keep", "checkpoints", "Newest checkpoints that are kept.", OnResume::kMayDiffer},
              field(&RunOptions::checkpoint, &CheckpointOptions::keep), 2, 1 << 20),
      integer({"checkpoint.failures_allowed", "saves", "Failed periodic saves in a row before the run stops.",
               OnResume::kMayDiffer},
              field(&RunOptions::checkpoint, &CheckpointOptions::failures_allowed), 0, 1 << 20),
      word({"checkpoint.asynchronous", "",
            "on: periodic checkpoints are copied in memory and written beside training; off: training waits for them.",
            OnResume::kMayDiffer},
           field(&RunOptions::checkpoint, &CheckpointOptions::asynchronous),
           {{"off", Asynchronous::kOff}, {"on", Asynchronous::kOn}}),
  };
}

Options grid_options() {
  return {
      text({"grid.device", "",
            "What a rank computes on: cuda is the GPU of its place on the host, cuda:N GPU number N; auto: a GPU where "
            "every rank can use one, else the CPU.",
            OnResume::kMayDiffer},
           field(&RunOptions::grid, &GridOptions::device), "auto, cpu, cuda or cuda:N", is_device),
      integer({"grid.layer_blocks", "blocks", "Blocks of layers, one per rank of a data-parallel group; 0: chosen.",
               OnResume::kMayDiffer},
              field(&RunOptions::grid, &GridOptions::layer_blocks), 0, kMaxRanks),
      integer({"grid.data_parallel", "ranks", "Ranks that share a block of layers; 0: chosen.", OnResume::kMayDiffer},
              field(&RunOptions::grid, &GridOptions::data_parallel), 0, kMaxRanks),
      integer({"grid.branch_parallel", "ranks",
               "Ranks that share the branches of a sequence in bridging: 2 where each has one leaf; 0: chosen.",
               OnResume::kMayDiffer},
              field(&RunOptions::grid, &GridOptions::branch_parallel), 0, 2),
      integer({"grid.threads", "threads", "Threads per rank; 0: cores allowed to the rank / ranks sharing them.",
               OnResume::kMayDiffer},
              field(&RunOptions::grid, &GridOptions::threads), 0, 4096),
      word({"grid.sum_order", "",
            "Order in which gradients on several GPUs add: fast: NCCL's own; fixed: the CPU's, the same for any grid.",
            OnResume::kMayDiffer},
           field(&RunOptions::grid, &GridOptions::sum_order), {{"fast", SumOrder::kFast}, {"fixed", SumOrder::kFixed}}),
      integer({"grid.timeout_seconds", "seconds", "Bound of every wait for another rank.", OnResume::kMayDiffer},
              field(&RunOptions::grid, &GridOptions::timeout_seconds), 1, 1 << 20),
  };
}

Options log_options() {
  return {
      number({"log.every_seconds", "seconds", "Between progress lines.", OnResume::kMayDiffer},
             field(&RunOptions::log, &LogOptions::every_seconds), kNotNegative),
      integer({"log.metrics_every_steps", "steps", "Between lines of metrics.jsonl.", OnResume::kMayDiffer},
              field(&RunOptions::log, &LogOptions::metrics_every_steps), 1, kMaxSteps),
  };
}

bool is_machine(const std::string& value) {
  return value == "auto" || value == "measured" || built_in_rates(value) != nullptr;
}

Options plan_options() {
  return {
      text({"plan.machine", "",
            "Whose speed --dry-run counts with. measured: this machine's, within seconds; a GPU's name: figures from "
            "its "
            "maker's, not measured; auto: measured on a CPU, by its name on a GPU.",
            OnResume::kMayDiffer},
           field(&RunOptions::plan, &PlanOptions::machine), "auto, measured, " + built_in_machines(), is_machine),
      path({"plan.rates", "", "File of rates that tadapt-dist calibrate --out wrote, instead; empty: none."},
           field(&RunOptions::plan, &PlanOptions::rates)),
      integer({"plan.ranks", "ranks", "Ranks that --dry-run plans for; 0: those it runs on.", OnResume::kMayDiffer},
              field(&RunOptions::plan, &PlanOptions::ranks), 0, kMaxRanks),
      integer({"plan.ranks_per_node", "ranks",
               "Ranks of a node: they share its storage's speed, and need no network between each other.",
               OnResume::kMayDiffer},
              field(&RunOptions::plan, &PlanOptions::ranks_per_node), 1, kMaxRanks),
      number_or_auto({"plan.active_features", "active features per token",
                      "That --dry-run counts with, of each layer; auto: 10, as in the least sparse published adapters.",
                      OnResume::kMayDiffer},
                     field(&RunOptions::plan, &PlanOptions::active_features), kNotNegative),
      number({"plan.storage_bytes_per_second", "bytes per second",
              "At which --dry-run lets a node read the cache, all its ranks together.", OnResume::kMayDiffer},
             field(&RunOptions::plan, &PlanOptions::storage_bytes_per_second), kPositive),
  };
}

}  // namespace

const std::vector<Option>& option_table() {
  static const std::vector<Option> kTable = [] {
    Options all;
    for (auto* section : {run_options, model_options, corpus_options, cache_options, adapter_options, loss_options,
                          optim_options, train_options, checkpoint_options, grid_options, log_options, plan_options}) {
      for (Option& option : section()) all.push_back(std::move(option));
    }
    return all;
  }();
  return kTable;
}

const Option* find_option(std::string_view key) {
  const auto found = std::ranges::find(option_table(), key, &Option::key);
  return found == option_table().end() ? nullptr : &*found;
}

std::string section_of(const Option& option) { return option.key.substr(0, option.key.find('.')); }

nlohmann::json config_json(const RunOptions& options) {
  nlohmann::json config = nlohmann::json::object();
  for (const Option& option : option_table()) {
    if (option.on_resume == OnResume::kMustMatch) config[option.key] = option.value(options);
  }
  return config;
}

std::vector<std::string> differing_keys(const nlohmann::json& before, const nlohmann::json& now,
                                        std::string_view words) {
  std::set<std::string> keys;
  for (const auto* config : {&before, &now}) {
    for (const auto& [key, value] : config->items()) keys.insert(key);
  }
  const auto shown = [](const nlohmann::json& config, const std::string& key) {
    return config.contains(key) ? config.at(key).dump() : "not set";
  };
  std::vector<std::string> differing;
  for (const std::string& key : keys) {
    const std::string was = shown(before, key);
    const std::string is = shown(now, key);
    if (was != is) differing.push_back(fmt::format("{} ({})", key, fmt::format(fmt::runtime(words), was, is)));
  }
  return differing;
}

}  // namespace tadapt
