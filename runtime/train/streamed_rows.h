// StreamedRows: training rows that the models make while the run trains on them.
#pragma once

#include "runtime/capture/activation_stream.h"
#include "runtime/train/prepare_cache.h"
#include "runtime/train/training_rows.h"

namespace tadapt {

/// Holds the models, the tokenised corpus and the held-out rows; writes nothing.
class StreamedRows : public TrainingRows {
 public:
  /// Null when a stop was asked for meanwhile. Collective.
  static std::unique_ptr<StreamedRows> make(const RowsRequest& request, const ApproveShape& approve);

  const RowReader& held_out() const override { return *held_out_; }
  std::unique_ptr<ActivationSource> source(std::int64_t first_step) override;

 private:
  /// The corpus tokenised, the sizes approved, the models loaded.
  StreamedRows(const RowsRequest& request, const ApproveShape& approve);
  CaptureOutcome make_first_rows();

  RowsRequest request_;
  CacheCapture capture_;
  std::unique_ptr<Decoder> pair_;
  std::unique_ptr<RowFeed> feed_;
  std::unique_ptr<KeptRows> held_out_;
};

/// The plan in words: rows and work, and that nothing is written.
std::string describe_stream(const CapturePlan& plan);

}  // namespace tadapt
