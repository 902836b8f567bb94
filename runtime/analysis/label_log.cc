#include "runtime/analysis/label_log.h"

#include <nlohmann/json.hpp>

#include "data/line_reader.h"

namespace tadapt {
namespace {

namespace fs = std::filesystem;

/// Between syncs: an fsync of each answer would take longer than a local judge.
constexpr std::chrono::seconds kSyncEvery{5};

void write(File& file, std::uint64_t offset, std::string_view text) {
  file.write(offset, std::as_bytes(std::span(text)));
}

}  // namespace

LabelAnswers::LabelAnswers(FileSystem& files, const fs::path& path, const std::string& adapters,
                           const std::string& model) {
  if (!files.exists(path)) return;
  read_label_lines(files, path, [&](const LabelRecord& record, const std::string& place) {
    if (record.adapters != adapters)
      throw ConfigError("{}: a label of features of '{}', not of '{}'; choose another --out", place, record.adapters,
                        adapters);
    if (record.model != model)
      throw ConfigError("{}: an answer of the judge '{}', not of '{}'; choose another --out", place, record.model,
                        model);
    take(record);
  });
}

const nlohmann::ordered_json* LabelAnswers::find(const std::string& id) const {
  const auto found = labels_.find(id);
  return found == labels_.end() ? nullptr : &found->second;
}

void LabelAnswers::take(const LabelRecord& record) {
  TokensUsed& used = used_[static_cast<std::size_t>(record.task)];
  ++used.answers;
  used.prompt += record.prompt_tokens;
  used.answer += record.answer_tokens;
  labels_.insert_or_assign(record.id, record.label);
}

LabelLog::LabelLog(FileSystem& files, const fs::path& path) {
  if (!files.exists(path)) {
    file_ = files.open(path, OpenMode::kCreate);
    file_->sync();
    files.sync_directory(path.parent_path());
    return;
  }
  bool unended = false;
  {
    LineReader lines(files, path);
    for (std::string line; lines.next(line);) {
      unended = !lines.ended() && nlohmann::json::accept(line);  // only the line's end is missing
      if (lines.ended() || unended) size_ += line.size() + 1;
    }
  }
  file_ = files.open(path, OpenMode::kReadWrite);
  if (unended) write(*file_, size_ - 1, "\n");
  if (file_->size() > size_) file_->truncate(size_);
  file_->sync();
}

void LabelLog::append(const LabelRecord& record) {
  const std::string line = to_line(record);
  write(*file_, size_, line);
  size_ += line.size();
  if (Clock::now() - last_sync_ >= kSyncEvery) sync();
}

void LabelLog::sync() {
  file_->sync();
  last_sync_ = Clock::now();
}

}  // namespace tadapt
