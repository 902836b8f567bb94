#include "runtime/train/checkpointing.h"

#include "kernels/core/memory.h"
#include "runtime/train/agreement.h"

namespace tadapt {
namespace {

constexpr char kCounters[] = "tokens_since_active";

std::string adapter_file(const Trainee& trainee) { return trainee.name + ".safetensors"; }
std::string optimizer_file(const Trainee& trainee) { return trainee.name + ".optimizer.safetensors"; }

/// "m.W_enc", "v.W_enc", … over both moments.
NamedTensors moment_tensors(const ParameterGroup& layout, const Tensor& first_moment, const Tensor& second_moment) {
  NamedTensors tensors;
  const ParameterTensors first = parameter_views(layout, first_moment);
  const ParameterTensors second = parameter_views(layout, second_moment);
  for (const auto& [name, tensor] : first.entries()) tensors["m." + name] = tensor;
  for (const auto& [name, tensor] : second.entries()) tensors["v." + name] = tensor;
  return tensors;
}

/// Copies the part's tensors into `into`; both must hold the same names, types and shapes.
void copy_into(Context& context, const CheckpointPart& part, const NamedTensors& into, const std::string& file) {
  for (const auto& [name, tensor] : into) {
    const auto found = part.tensors.find(name);
    if (found == part.tensors.end()) throw DataError("{}: tensor {} is missing", file, name);
    const Tensor saved = found->second.tensor();
    if (saved.dtype() != tensor.dtype() || saved.shape() != tensor.shape())
      throw DataError("{}: tensor {}: expected {} {}, found {} {}", file, name, tadapt::name(tensor.dtype()),
                      tensor.shape().to_string(), tadapt::name(saved.dtype()), saved.shape().to_string());
    copy(context, saved, tensor);
  }
  synchronize(context);
}

NamedTensors named(const ParameterTensors& tensors) {
  NamedTensors result;
  for (const auto& [name, tensor] : tensors.entries()) result[name] = tensor;
  return result;
}

NamedTensors with_counters(NamedTensors moments, std::vector<std::int64_t>& counters) {
  moments[kCounters] = Tensor::of(std::span(counters), {static_cast<std::int64_t>(counters.size())});
  return moments;
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

Checkpointer::Checkpointer(Context& context, FileSystem& files, Communicator& world, const ProcessGrid& grid,
                           CheckpointPlan plan)
    : context_(context), files_(files), world_(world), grid_(grid), plan_(std::move(plan)) {}

std::vector<PartRecord> Checkpointer::write_parts(CheckpointWriter& writer, std::vector<Trainee>& trainees,
                                                  const ParameterStore& store, const AdamWState& optimiser) const {
  std::vector<PartRecord> records;
  // The ranks of a group hold the same state and share its writing.
  for (auto i = static_cast<std::size_t>(grid_.index_of(world_.rank())); i < trainees.size();
       i += static_cast<std::size_t>(grid_.data_parallel())) {
    Trainee& trainee = trainees[i];
    const HostView masters(context_, store.master(i)), first(context_, optimiser.first_moment(i)),
        second(context_, optimiser.second_moment(i));
    records.push_back(writer.write_part(adapter_file(trainee), named(parameter_views(store.group(i), masters.tensor())),
                                        {{"layer", std::to_string(trainee.layer)}}));
    records.push_back(writer.write_part(
        optimizer_file(trainee),
        with_counters(moment_tensors(store.group(i), first.tensor(), second.tensor()), trainee.tokens_since_active)));
  }
  return records;
}

std::string Checkpointer::save(std::int64_t step, std::vector<Trainee>& trainees, const ParameterStore& store,
                               const AdamWState& optimiser) {
  CheckpointWriter writer(files_, plan_.run_dir / "checkpoints", step);
  on_rank_zero(world_, [&] {
    writer.prepare();
    return std::string();
  });
  nlohmann::json mine = nlohmann::json::array();
  agree(world_, [&] {
    for (const PartRecord& record : write_parts(writer, trainees, store, optimiser)) mine.push_back(record.to_json());
  });
  const std::vector<std::string> all = world_.all_gather_text(mine.dump(), "checkpoint records");
  return on_rank_zero(world_, [&] {
    std::vector<PartRecord> records;
    for (const std::string& rank : all)
      for (const auto& record : nlohmann::json::parse(rank)) records.push_back(PartRecord::from_json(record));
    const std::filesystem::path path = writer.commit(records, state(step));
    verified_.insert(path);
    writer.prune(static_cast<int>(plan_.keep), verified_);
    return path.string();
  });
}

nlohmann::json Checkpointer::state(std::int64_t step) const {
  nlohmann::json state = plan_.provenance;
  const std::int64_t samples = step * plan_.batch_tokens;
  state["step"] = step;
  state["sample_cursor"] = samples;
  state["epoch"] = samples / plan_.train_rows;
  return state;
}

std::int64_t Checkpointer::restore(const std::filesystem::path& checkpoint, std::vector<Trainee>& trainees,
                                   ParameterStore& store, AdamWState& optimiser, const Warn& warn) {
  std::int64_t step = 0;
  agree(world_, [&] {
    const CheckpointInfo info = open_checkpoint(files_, checkpoint);
    step = info.step;
    require_same_run(info, warn);
    for (std::size_t i = 0; i < trainees.size(); ++i) {
      const std::string masters = adapter_file(trainees[i]), moments = optimizer_file(trainees[i]);
      copy_into(context_, read_part(files_, info, masters), named(store.master_views(i)),
                (checkpoint / masters).string());
      copy_into(context_, read_part(files_, info, moments),
                with_counters(moment_tensors(store.group(i), optimiser.first_moment(i), optimiser.second_moment(i)),
                              trainees[i].tokens_since_active),
                (checkpoint / moments).string());
    }
  });
  verified_.insert(checkpoint);
  return step;
}

void Checkpointer::require_same_run(const CheckpointInfo& checkpoint, const Warn& warn) const {
  for (const char* key : {"config_hash", "base", "target", "cache"})
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
