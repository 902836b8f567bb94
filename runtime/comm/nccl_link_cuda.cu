#include <nccl.h>

#include <algorithm>
#include <utility>

#include "kernels/core/cuda.cuh"
#include "runtime/comm/nccl_link.h"

namespace tadapt {
namespace {

ncclResult_t result(int status) { return static_cast<ncclResult_t>(status); }

std::size_t count(const Tensor& values) { return static_cast<std::size_t>(values.elements()); }

}  // namespace

void NcclLink::check(int status, const char* call) const {
  if (result(status) == ncclSuccess || result(status) == ncclInProgress) return;
  throw CommError("{}: {} ({})", call, ncclGetErrorString(result(status)), ncclGetLastError(communicator_));
}

std::string NcclLink::version() {
  int code = 0;
  if (const ncclResult_t status = ncclGetVersion(&code); status != ncclSuccess)
    throw CommError("ncclGetVersion: {}", ncclGetErrorString(status));
  return fmt::format("{}.{}.{}", code / 10000, code % 10000 / 100, code % 100);
}

std::string NcclLink::new_id() {
  ncclUniqueId id{};
  if (const ncclResult_t status = ncclGetUniqueId(&id); status != ncclSuccess)
    throw CommError("ncclGetUniqueId: {} ({})", ncclGetErrorString(status), ncclGetLastError(nullptr));
  return {id.internal, sizeof id.internal};
}

NcclLink::NcclLink(const std::string& id, int rank, int ranks) {
  ncclUniqueId unique{};
  if (id.size() != sizeof unique.internal)
    throw CommError("NCCL: an id of {} bytes, expected {}", id.size(), sizeof unique.internal);
  std::copy(id.begin(), id.end(), unique.internal);
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  check(ncclCommInitRankConfig(&communicator_, ranks, unique, rank, &config), "ncclCommInitRankConfig");
}

bool NcclLink::settled() {
  ncclResult_t state = ncclSuccess;
  check(ncclCommGetAsyncError(communicator_, &state), "ncclCommGetAsyncError");
  check(state, "NCCL");
  return state == ncclSuccess;
}

void NcclLink::sum(Context& line, const Tensor& values) {
  check(ncclAllReduce(values.data(), values.data(), count(values), ncclFloat, ncclSum, communicator_,
                      cuda::stream_of(line)),
        "ncclAllReduce");
}

void NcclLink::scatter_sum(Context& line, const Tensor& parts, const Tensor& mine) {
  check(ncclReduceScatter(parts.data(), mine.data(), count(mine), ncclFloat, ncclSum, communicator_,
                          cuda::stream_of(line)),
        "ncclReduceScatter");
}

void NcclLink::gather(Context& line, const Tensor& mine, const Tensor& parts) {
  check(ncclAllGather(mine.data(), parts.data(), count(mine), ncclFloat, communicator_, cuda::stream_of(line)),
        "ncclAllGather");
}

void NcclLink::broadcast(Context& line, int root, const Tensor& values) {
  check(
      ncclBroadcast(values.data(), values.data(), count(values), ncclFloat, root, communicator_, cuda::stream_of(line)),
      "ncclBroadcast");
}

void NcclLink::exchange(Context& line, int peer, const Tensor& out, const Tensor& in) {
  check(ncclGroupStart(), "ncclGroupStart");
  if (count(out) > 0)
    check(ncclSend(out.data(), count(out), ncclFloat, peer, communicator_, cuda::stream_of(line)), "ncclSend");
  if (count(in) > 0)
    check(ncclRecv(in.data(), count(in), ncclFloat, peer, communicator_, cuda::stream_of(line)), "ncclRecv");
  check(ncclGroupEnd(), "ncclGroupEnd");
}

void NcclLink::finalize() { check(ncclCommFinalize(communicator_), "ncclCommFinalize"); }

void NcclLink::destroy() {
  if (ncclComm* ending = std::exchange(communicator_, nullptr)) check(ncclCommDestroy(ending), "ncclCommDestroy");
}

void NcclLink::abort() {
  if (ncclComm* ending = std::exchange(communicator_, nullptr)) check(ncclCommAbort(ending), "ncclCommAbort");
}

}  // namespace tadapt
