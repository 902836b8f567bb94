// TrainingRows: what a run of the local objective learns from, out of a cache on disk or out of the running models.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "data/activation_source.h"
#include "data/row_reader.h"
#include "runtime/capture/capture_identity.h"
#include "runtime/comm/process_grid.h"
#include "runtime/train/run_environment.h"
#include "runtime/train/run_options.h"
#include "runtime/train/run_shape.h"

namespace tadapt {

/// The same rows in the same order, bit for bit, wherever they come from.
class TrainingRows {
 public:
  virtual ~TrainingRows() = default;

  const RunShape& shape() const { return shape_; }
  /// s² of each layer of the shape.
  const std::vector<double>& scale_squares() const { return scale_squares_; }
  /// Models, tokenizer, corpus and choice of rows.
  const Provenance& provenance() const { return provenance_; }
  /// 16 hexadecimal digits that tell these rows from others of the same source.
  const std::string& hash() const { return hash_; }

  /// Those of held_out_pieces(), as far as they are this rank's.
  virtual const RowReader& held_out() const = 0;
  /// This rank's batches from a step on; the rows must outlive it. Collective.
  virtual std::unique_ptr<ActivationSource> source(std::int64_t first_step) = 0;

 protected:
  RunShape shape_;
  std::vector<double> scale_squares_;
  Provenance provenance_;
  std::string hash_;
};

/// What a run's rows are made ready with. Everything outlives the rows.
struct RowsRequest {
  const RunOptions& options;
  const RunEnvironment& environment;
  const CaptureIdentity& identity;  ///< cache_identity()
  const ProcessGrid& grid;
};
/// Sees the run's sizes before models are loaded, and may throw.
using ApproveShape = std::function<void(const RunShape&)>;

/// Captures the cache if it is not there; or loads the models and makes the rows that are needed at once. Null when a
/// stop was asked for meanwhile. Collective.
std::unique_ptr<TrainingRows> prepare_training_rows(const RowsRequest& request, const ApproveShape& approve);

}  // namespace tadapt
