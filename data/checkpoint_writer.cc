// Saving: everything synced and read back under a temporary name, then one rename.
#include <algorithm>
#include <memory>
#include <utility>

#include "data/checkpoint.h"
#include "data/checkpoint_names.h"
#include "kernels/core/error.h"

namespace tadapt {
namespace {
namespace fs = std::filesystem;

[[noreturn]] void misuse(const std::string& what) { throw Error(ExitCode::kInternal, "checkpoint writer: " + what); }

SafetensorsRecord write_text(FileSystem& files, const fs::path& path, const std::string& text) {
  const auto bytes = std::as_bytes(std::span(text));
  const std::unique_ptr<File> file = files.open(path, OpenMode::kCreate);
  file->write(0, bytes);
  file->sync();
  return {bytes.size(), crc32c(bytes), {}};
}

bool verifies(FileSystem& files, const fs::path& path) {
  try {
    verify_checkpoint(files, path);
    return true;
  } catch (const FormatVersionError&) {
    return true;  // another version's, as far as can be seen intact: not ours to remove early
  } catch (const Error&) {
    return false;
  }
}
}  // namespace

CheckpointWriter::CheckpointWriter(FileSystem& files, fs::path directory, std::int64_t step)
    : files_(files),
      directory_(std::move(directory)),
      temporary_(directory_ / (CheckpointName{step}.to_string() + ".tmp")),
      step_(step) {
  if (step < 0) misuse(fmt::format("step {}", step));
}

void CheckpointWriter::prepare() {
  if (!files_.exists(directory_)) {
    files_.make_directories(directory_);
    files_.sync_directory(directory_.parent_path());
  }
  for (const std::string& name : files_.list(directory_)) {
    if (is_temporary_checkpoint(name)) files_.remove_all(directory_ / name);
  }
  files_.make_directories(temporary_);
}

PartRecord CheckpointWriter::write_part(const std::string& name, const NamedTensors& tensors,
                                        const std::map<std::string, std::string>& metadata) {
  check_part_name(name, temporary_);
  return {name, write_safetensors(files_, temporary_ / name, tensors, metadata)};
}

fs::path CheckpointWriter::commit(const std::vector<PartRecord>& parts, const nlohmann::json& state) {
  if (!state.is_object()) misuse("state is no JSON object");
  CheckpointManifest manifest{step_, {}};
  for (const PartRecord& part : parts) {
    check_part_name(part.name, temporary_);
    if (!manifest.files.emplace(part.name, part.content).second) misuse(part.name + " was written twice");
  }
  const nlohmann::json enveloped = {{"format_version", kCheckpointFormatVersion}, {"step", step_}, {"state", state}};
  manifest.files[kStateName] = write_text(files_, temporary_ / kStateName, enveloped.dump(1) + "\n");
  write_text(files_, temporary_ / kManifestName, manifest.to_text());
  files_.sync_directory(temporary_);
  try {
    verify_checkpoint(files_, temporary_);
  } catch (const Error& error) {
    throw WriteError("{}: does not read back as it was written: {}", temporary_.string(), error.what());
  }
  const fs::path published = published_name();
  files_.rename(temporary_, published);
  // Ends with a sync of the folder, which makes the rename above durable too.
  write_atomically(files_, directory_ / "LATEST", published.filename().string() + "\n");
  committed_ = published;
  return committed_;
}

fs::path CheckpointWriter::published_name() const {
  CheckpointName name{step_};
  for (const std::string& present : files_.list(directory_)) {
    const std::optional<CheckpointName> other = CheckpointName::parse(present);
    if (other && other->step == step_) name.edition = std::max(name.edition, other->edition + 1);
  }
  return directory_ / name.to_string();
}

void CheckpointWriter::prune(int keep, const std::set<fs::path>& verified) {
  if (committed_.empty()) misuse("prune before commit");
  if (keep < 1) misuse(fmt::format("prune would keep {}", keep));
  int kept = 0;
  std::vector<fs::path> doomed;
  for (const fs::path& path : list_checkpoints(files_, directory_)) {
    if (kept < keep) {
      kept += path == committed_ || verified.contains(path) || verifies(files_, path) ? 1 : 0;
    } else {
      doomed.push_back(path);
      doomed.back() += ".tmp";
      files_.rename(path, doomed.back());
    }
  }
  // The renames first, and for good: half a checkpoint must never stand under a name that is looked at.
  if (!doomed.empty()) files_.sync_directory(directory_);
  for (const fs::path& path : doomed) files_.remove_all(path);
}

}  // namespace tadapt
