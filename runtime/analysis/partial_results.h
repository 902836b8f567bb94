// PartialResults: what ranks have collected so far, as files that another start of the same job takes up.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "runtime/analysis/feature_records.h"
#include "runtime/analysis/index_set.h"
#include "runtime/train/run_environment.h"

namespace tadapt {

/// Each rank keeps one file, `GENERATION-RANK.part` in `directory`, which says of which conversations it holds the
/// records. Records only grow, so of two files either one holds all of the other or they have nothing in common: a
/// conversation is never counted twice, whenever a job was killed.
class PartialResults {
 public:
  /// Takes up what is there: this rank's share of the files, into `records` (one entry a layer). Damaged files are told
  /// and left out. ConfigError when they are of another job. Collective.
  PartialResults(const RunEnvironment& environment, std::filesystem::path directory, const std::string& job,
                 std::vector<LayerRecords>& records);

  /// Of all ranks when they were taken up.
  const IndexSet& found() const { return found_; }
  /// Conversations [begin, end) are in the records now.
  void add(std::int64_t begin, std::int64_t end);
  bool saved() const { return saved_ == mine_.size(); }
  /// Writes the records, and removes the files that they replace.
  void save();

 private:
  struct Entry {
    std::string name;
    IndexSet done;
  };
  std::string choose();
  Entry read(const std::string& name, std::string* body) const;

  const RunEnvironment& environment_;
  std::filesystem::path directory_;
  std::string job_, name_;
  std::vector<LayerRecords>& records_;
  IndexSet found_, mine_;
  std::vector<std::filesystem::path> replaced_;
  std::int64_t saved_ = 0;
};

}  // namespace tadapt
