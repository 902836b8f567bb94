// What a judge answered so far: labels.jsonl, read when a job begins and appended to, an answer at a time.
#pragma once

#include <array>
#include <chrono>
#include <memory>
#include <string>
#include <unordered_map>

#include "runtime/analysis/feature_labels.h"

namespace tadapt {

/// How many tokens judges read and wrote, as endpoints count them.
struct TokensUsed {
  std::int64_t answers = 0, prompt = 0, answer = 0;
};

/// The answers of a file, by question.
class LabelAnswers {
 public:
  /// None where there is no file. ConfigError for lines of other adapters or another judge than these.
  LabelAnswers(FileSystem& files, const std::filesystem::path& path, const std::string& adapters,
               const std::string& model);

  /// The label that the last answer to a question gave (null: none that can be used); nullptr: it was not answered.
  const nlohmann::ordered_json* find(const std::string& id) const;
  void take(const LabelRecord& record);
  const TokensUsed& used(LabelTask task) const { return used_[static_cast<std::size_t>(task)]; }

 private:
  std::unordered_map<std::string, nlohmann::ordered_json> labels_;
  std::array<TokensUsed, kLabelTaskNames.size()> used_;
};

/// Appends lines that a kill of this process leaves whole, but for the last one.
class LabelLog {
 public:
  /// Makes the file, or cuts off a last line that is torn.
  LabelLog(FileSystem& files, const std::filesystem::path& path);

  void append(const LabelRecord& record);
  /// What was appended survives a power failure.
  void sync();

 private:
  using Clock = std::chrono::steady_clock;
  std::unique_ptr<File> file_;
  std::uint64_t size_ = 0;
  Clock::time_point last_sync_ = Clock::now();
};

}  // namespace tadapt
