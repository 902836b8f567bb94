// Agreement: a phase that every rank enters ends on every rank the same way, with one message from one rank.
#pragma once

#include <functional>
#include <string>

#include "kernels/core/error.h"
#include "runtime/comm/communicator.h"
#include "runtime/comm/peer_failure.h"

namespace tadapt {

/// Runs `phase` here, then asks all ranks how it went. When it failed anywhere, the lowest failing rank rethrows its
/// error and every other rank throws PeerFailure with the same exit code. Collective.
void agree(Communicator& world, const std::function<void()>& phase);

/// As agree(), with `phase` run on rank 0 alone; returns the text it gave, on every rank.
std::string on_rank_zero(Communicator& world, const std::function<std::string()>& phase);

}  // namespace tadapt
