#include "runtime/train/checkpointing.h"

#include <algorithm>
#include <exception>
#include <optional>

#include "kernels/core/memory.h"
#include "runtime/train/agreement.h"

namespace tadapt {
namespace {

constexpr char kCounters[] = "tokens_since_active";
constexpr char kFirst[] = "m.", kSecond[] = "v.";

std::string adapter_file(const std::string& trainee) { return trainee + ".safetensors"; }
std::string optimizer_file(const std::string& trainee) { return trainee + ".optimizer.safetensors"; }

/// "m.W_enc", "v.W_enc", … over both moments.
NamedTensors moment_tensors(const ParameterGroup& layout, const WholeMoments& moments) {
  NamedTensors tensors;
  const ParameterTensors first = parameter_views(layout, moments.first());
  const ParameterTensors second = parameter_views(layout, moments.second());
  for (const auto& [name, tensor] : first.entries()) tensors[kFirst + name] = tensor;
  for (const auto& [name, tensor] : second.entries()) tensors[kSecond + name] = tensor;
  return tensors;
}

/// The part's tensor of this name; DataError unless it has this type and shape.
Tensor saved_tensor(const CheckpointPart& part, const std::string& name, DType dtype, const Shape& shape,
                    const std::string& file) {
  const auto found = part.tensors.find(name);
  if (found == part.tensors.end()) throw DataError("{}: tensor {} is missing", file, name);
  const Tensor saved = found->second.tensor();
  if (saved.dtype() != dtype || saved.shape() != shape)
    throw DataError("{}: tensor {}: expected {} {}, found {} {}", file, name, tadapt::name(dtype), shape.to_string(),
                    tadapt::name(saved.dtype()), saved.shape().to_string());
  return saved;
}

/// Copies the part's tensors into `into`; both must hold the same names, types and shapes.
void copy_into(Context& context, const CheckpointPart& part, const NamedTensors& into, const std::string& file) {
  for (const auto& [name, tensor] : into)
    copy(context, saved_tensor(part, name, tensor.dtype(), tensor.shape(), file), tensor);
  synchronize(context);
}

NamedTensors named(const ParameterTensors& tensors) {
  NamedTensors result;
  for (const auto& [name, tensor] : tensors.entries()) result[name] = tensor;
  return result;
}

Tensor tensor_of(std::vector<std::int64_t>& counters) {
  return Tensor::of(std::span(counters), {static_cast<std::int64_t>(counters.size())});
}

}  // namespace

std::filesystem::path newest_checkpoint(FileSystem& files, Communicator& world, const std::filesystem::path& run_dir,
                                        const Warn& warn) {
  return on_rank_zero(world, [&] {
    const auto found = find_checkpoint(
        files, run_dir / "checkpoints", [&](const std::filesystem::path& path, const std::string& reason) {
          warn(fmt::format("WARNING: checkpoint {} is damaged and not used: {}", path.string(), reason));
        });
    return found ? found->path.string() : std::string();
  });
}

Checkpointer::Checkpointer(Context& context, FileSystem& files, Communicator& world, Communicator& group,
                           CheckpointPlan plan)
    : context_(context), files_(files), world_(world), group_(group), plan_(std::move(plan)) {}

/// Indices of the run's trainees on this rank.
std::vector<std::size_t> Checkpointer::own_trainees(const TrainingState& state) const {
  std::vector<std::size_t> own;
  for (std::size_t i = 0; i < state.trainees.size(); ++i)
    if (state.trainees[i].run == plan_.run) own.push_back(i);
  return own;
}

Checkpointer::HeldTrainee Checkpointer::hold_trainee(TrainingState& state, std::size_t index, WholeMoments moments,
                                                     Hold hold) const {
  const Trainee& trainee = state.trainees[index];
  const Tensor live = state.store.master(index);
  HeldTrainee held{.name = trainee.name,
                   .layer = trainee.layer,
                   .layout = state.store.group(index),
                   .moments = std::move(moments),
                   .memory = {},
                   .masters = live,
                   .counters = trainee.tokens_since_active};
  if (hold == Hold::kCopy || live.device() != Device::kCpu) {
    held.memory = Buffer(Device::kCpu, DType::kFloat32, live.shape());
    held.masters = held.memory.tensor();
    copy(context_, live, held.masters);
    synchronize(context_);
  }
  return held;
}

void Checkpointer::begin(std::int64_t step, TrainingState& state, Hold hold) {
  save_.reset();
  Save save{.writer = CheckpointWriter(files_, plan_.run_dir / "checkpoints", step), .step = step, .trainees = {}};
  on_rank_zero(world_, [&] {
    save.writer.prepare();
    return std::string();
  });
  // The ranks of a group share the writing: of each `ranks` trainees every one writes its own.
  const auto ranks = static_cast<std::size_t>(group_.size()), place = static_cast<std::size_t>(group_.rank());
  const std::vector<std::size_t> of_run = own_trainees(state);
  for (std::size_t at = 0; at < of_run.size(); ++at) {
    const bool own = at % ranks == place;
    if (!own && !state.optimiser.sharded()) continue;
    WholeMoments moments(context_, group_, state.optimiser, of_run[at], hold);
    if (own) save.trainees.push_back(hold_trainee(state, of_run[at], std::move(moments), hold));
  }
  save_.emplace(std::move(save));
}

std::vector<PartRecord> Checkpointer::write_trainee(HeldTrainee& trainee) {
  NamedTensors optimizer = moment_tensors(trainee.layout, trainee.moments);
  optimizer[kCounters] = tensor_of(trainee.counters);
  CheckpointWriter& writer = save_->writer;
  return {writer.write_part(adapter_file(trainee.name), named(parameter_views(trainee.layout, trainee.masters)),
                            {{"layer", std::to_string(trainee.layer)}}),
          writer.write_part(optimizer_file(trainee.name), optimizer)};
}

void Checkpointer::write(const std::stop_token& stop) {
  try {
    for (HeldTrainee& trainee : save_->trainees) {
      if (stop.stop_requested()) return;
      for (PartRecord& record : write_trainee(trainee)) save_->records.push_back(std::move(record));
    }
  } catch (const std::exception&) {
    save_->failure = std::current_exception();
  }
}

void Checkpointer::gather() {
  save_->trainees.clear();
  agree(world_, [&] {
    if (save_->failure) std::rethrow_exception(save_->failure);
  });
  nlohmann::json mine = nlohmann::json::array();
  for (const PartRecord& record : save_->records) mine.push_back(record.to_json());
  save_->records.clear();
  for (const std::string& rank : world_.all_gather_text(mine.dump(), "checkpoint records"))
    for (const auto& record : nlohmann::json::parse(rank)) save_->records.push_back(PartRecord::from_json(record));
}

void Checkpointer::commit() {
  if (world_.rank() != 0) return;
  try {
    save_->path = save_->writer.commit(save_->records, description(save_->step)).string();
    verified_.insert(save_->path);
    save_->writer.prune(static_cast<int>(plan_.keep), verified_);
  } catch (const std::exception&) {
    save_->failure = std::current_exception();
  }
}

std::string Checkpointer::conclude() {
  return on_rank_zero(world_, [&] {
    if (save_->failure) std::rethrow_exception(save_->failure);
    return save_->path;
  });
}

std::string Checkpointer::save(std::int64_t step, TrainingState& state) {
  begin(step, state, Hold::kInPlace);
  write({});
  gather();
  commit();
  return conclude();
}

nlohmann::json Checkpointer::description(std::int64_t step) const {
  nlohmann::json description = plan_.provenance;
  const std::int64_t samples = step * plan_.samples_per_step;
  description["step"] = step;
  description["sample_cursor"] = samples;
  description["epoch"] = samples / plan_.samples_per_epoch;
  return description;
}

std::int64_t Checkpointer::restore(const std::filesystem::path& checkpoint, TrainingState& state, const Warn& warn) {
  auto& [trainees, store, optimiser] = state;
  std::int64_t step = 0;
  agree(world_, [&] {
    const CheckpointInfo info = open_checkpoint(files_, checkpoint);
    step = info.step;
    require_same_run(info, warn);
    for (const std::size_t i : own_trainees(state)) {
      const std::string masters = adapter_file(trainees[i].name), moments = optimizer_file(trainees[i].name);
      copy_into(context_, read_part(files_, info, masters), named(store.master_views(i)),
                (checkpoint / masters).string());
      const CheckpointPart saved = read_part(files_, info, moments);
      const std::string file = (checkpoint / moments).string();
      copy_into(context_, saved, {{kCounters, tensor_of(trainees[i].tokens_since_active)}}, file);
      restore_moments(saved, store.group(i), optimiser, i, file);
    }
  });
  verified_.insert(checkpoint);
  return step;
}

/// Those elements that this rank's part has.
void Checkpointer::restore_moments(const CheckpointPart& part, const ParameterGroup& layout,
                                   const AdamWState& optimiser, std::size_t index, const std::string& file) const {
  const auto [part_begin, part_end] = optimiser.part(index);
  const std::pair<const char*, Tensor> moments[] = {{kFirst, optimiser.first_moment(index)},
                                                    {kSecond, optimiser.second_moment(index)}};
  for (const auto& [prefix, moment] : moments) {
    for (const ParameterGroup::Span& span : layout.parameters) {
      const std::int64_t elements = span.shape.elements();
      const Tensor saved = saved_tensor(part, prefix + span.name, moment.dtype(), span.shape, file);
      const std::int64_t begin = std::max(span.offset, part_begin), end = std::min(span.offset + elements, part_end);
      if (begin >= end) continue;
      copy(context_, saved.reshaped({elements}).rows(begin - span.offset, end - span.offset),
           moment.rows(begin - part_begin, end - part_begin));
    }
  }
  synchronize(context_);
}

void Checkpointer::require_same_run(const CheckpointInfo& checkpoint, const Warn& warn) const {
  for (const char* key : {"config_hash", "base", "target", "cache", "corpus"})
    if (checkpoint.state.value(key, "") != plan_.provenance.value(key, ""))
      throw ConfigError("{}: belongs to another run: {} is {} there and {} here", checkpoint.path.string(), key,
                        checkpoint.state.value(key, "none"), plan_.provenance.value(key, "none"));
  const auto there = checkpoint.state.value("arithmetic", checkpoint.state.value("instruction_set", "unknown"));
  const auto here = plan_.provenance.value("arithmetic", "unknown");
  if (there != here)
    warn(fmt::format("WARNING: the checkpoint was made on {}, this is {}: results go on but not bit for bit", there,
                     here));
}

}  // namespace tadapt
