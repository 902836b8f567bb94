// NcclLink: one rank's end of an NCCL communicator, and the only place that speaks to the library.
#pragma once

#include <string>

#include "kernels/core/context.h"

struct ncclComm;

namespace tadapt {

/// Every call begins something and returns at once, unless said otherwise; nothing else may be begun before settled().
/// CommError with the call and NCCL's reason when it is refused. Not for several threads at a time.
class NcclLink {
 public:
  static std::string version();  ///< "2.28.3"
  /// What the members of a new group know each other by: made by one of them, binary.
  static std::string new_id();

  /// Begins to connect to the group's other members, on the current device.
  NcclLink(const std::string& id, int rank, int ranks);
  NcclLink(const NcclLink&) = delete;
  NcclLink& operator=(const NcclLink&) = delete;

  /// Whether what was begun stands: connected, ended, or handed to the device, in the order of the line it was begun
  /// on. Also throws when something failed that stood already.
  bool settled();

  /// In place over all members, in an order of NCCL's own; `values` are float32.
  void sum(Context& line, const Tensor& values);
  /// Adds up equal parts of all members' `parts`: part r comes to member r, as `mine`, where it lies in `parts`.
  void scatter_sum(Context& line, const Tensor& parts, const Tensor& mine);
  /// The same way back: every member's `mine` comes to all, as its part of `parts`.
  void gather(Context& line, const Tensor& mine, const Tensor& parts);
  /// What `root` has comes to all, in place.
  void broadcast(Context& line, int root, const Tensor& values);
  /// What member `peer` sends comes to `in` while it gets `out`; either may be empty.
  void exchange(Context& line, int peer, const Tensor& out, const Tensor& in);

  /// Begins to end the group; all members come.
  void finalize();
  /// Gives everything back, after finalize(). May block.
  void destroy();
  /// Ends whatever is under way and gives everything back. May block.
  void abort();

 private:
  void check(int status, const char* call) const;

  ncclComm* communicator_ = nullptr;
};

}  // namespace tadapt
