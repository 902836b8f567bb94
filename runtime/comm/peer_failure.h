// PeerFailure: how a rank whose own work was fine leaves a phase that another rank could not finish.
#pragma once

#include "kernels/core/error.h"

namespace tadapt {

/// Carries the peer's exit code and message. MpiSession::fail leaves it unprinted, as the peer prints its own.
class PeerFailure : public Error {
 public:
  using Error::Error;
};

}  // namespace tadapt
