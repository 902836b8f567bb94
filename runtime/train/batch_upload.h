// BatchUpload: the layers of a batch where the context computes, one copied while another is used.
#pragma once

#include <array>

#include "data/activation_source.h"
#include "kernels/core/event.h"

namespace tadapt {

/// On the CPU it hands on what it is given. On a GPU layers are copied on a line of work of their own.
class BatchUpload {
 public:
  explicit BatchUpload(Context& context);

  /// Begins to copy a layer, whose memory stays as it is until work on what take() gives is done. At most one is under
  /// way.
  void start(const ActivationBatch::Layer& layer);
  /// The layer started last; valid for what is asked of the context before the second call of start() from now.
  ActivationBatch::Layer take();

 private:
  struct Place {
    Buffer x, delta;
    Event copied;  ///< the layer is there
    Event used;    ///< whatever was asked of the context when the place was filled anew is done
  };

  Context& context_;
  Context copying_;
  std::array<Place, 2> places_;
  std::size_t current_ = 0;  ///< place of the layer started last
  ActivationBatch::Layer layer_;
};

}  // namespace tadapt
