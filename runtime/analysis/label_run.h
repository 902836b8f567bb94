// Labelling features: asking a judge, or handing its questions out and taking answers in, with everything kept.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "runtime/analysis/judge_client.h"
#include "runtime/analysis/label_summary.h"

namespace tadapt {

struct LabelRequest {
  std::filesystem::path features;  ///< a feature store
  std::filesystem::path out;       ///< labels.jsonl, labels.summary.json
  FeatureChoice choice;            ///< its seed draws texts, too
  std::vector<LabelTask> tasks;
  JudgeOptions judge;
  bool again = false;  ///< asks again what was answered without a label
};

struct LabelEnvironment {
  FileSystem& files;
  std::string who;  ///< for locks
  std::function<void(const std::string& text)> print;
  std::function<bool()> stop_requested;
};

enum class LabelAccess { kRead, kWrite };  ///< kWrite locks the folder, which ask and import_answers need

class LabelJob {
 public:
  /// Reads the store and what was answered already. Errors of FeatureStore, choose_features and LabelAnswers; DataError
  /// when detection is asked for and the store has no contrast windows; WriteError naming who has the folder.
  LabelJob(const LabelRequest& request, const LabelEnvironment& environment, LabelAccess access);

  /// Counted anew, with descriptions that are still to be asked for or without the questions that need them.
  LabelSummary summary(Undescribed undescribed) const;
  /// Asks all that is open, descriptions before what needs them. False when a stop was asked for. Errors of ask_judge;
  /// whatever was answered is in labels.jsonl.
  bool ask();
  /// Writes the open questions as lines of OpenAI's batch format: {custom_id, method, url, body}.
  void export_questions(const std::filesystem::path& file) const;
  /// Takes answers to open questions from lines {id, answer}, or from what a batch gave: {custom_id, response}.
  /// DataError for a line that is neither, and, when all others have been taken, for one with the id of no question.
  void import_answers(const std::filesystem::path& file);
  /// Prints what the labels say together, and writes it to labels.summary.json.
  void summarise() const;

 private:
  LabelSource source() const;
  std::vector<LabelTask> wanted(std::initializer_list<LabelTask> of) const;
  void record(const LabelQuestion& question, const JudgeAnswer& answer);

  const LabelRequest& request_;
  const LabelEnvironment& environment_;
  FeatureStore store_;
  ChosenFeatures chosen_;
  StoredTokens tokens_;
  std::unique_ptr<FileLock> lock_;  // before the answers are read: no other job adds to them then
  LabelAnswers answers_;
  std::optional<LabelLog> log_;
};

}  // namespace tadapt
