#include <mpi.h>
#include <nccl.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <utility>
#include <vector>

struct ncclComm {
  MPI_Comm ranks = MPI_COMM_NULL;
  int size = 0;
  int collectives = 0;
  int looks = 0;           // how often it has been asked how it is since the last call
  bool connected = false;  // until then it is busy
  bool broken = false;     // which is seen after some looks
  std::string fail;        // $TADAPT_NCCL_FAIL
};

namespace {

/// A message of the group that is being made, or its collective.
struct Message {
  void* bytes;
  std::size_t count;
  int peer;
  bool receives;
  ncclComm* communicator;
  cudaStream_t stream;
};
std::vector<Message>& group() {
  static std::vector<Message> messages;
  return messages;
}
bool& in_group() {
  static bool inside = false;
  return inside;
}

/// Above the tags of MpiTransport, which shares the communicator of all ranks.
constexpr int kFirstTag = 1 << 22;

ncclResult_t begin(ncclComm& communicator) {
  communicator.looks = 0;
  return ncclInProgress;
}

/// Always at the first look after a call.
bool busy(const ncclComm& communicator) { return !communicator.connected || communicator.looks < 2; }

/// Counts a collective; whether this is the one that is to fail, which it then has done, by `status`.
bool fails(ncclComm& communicator, cudaStream_t stream, ncclResult_t* status) {
  const auto colon = communicator.fail.find(':');
  if (colon == std::string::npos || ++communicator.collectives != std::atoi(communicator.fail.c_str() + colon + 1))
    return false;
  const std::string how = communicator.fail.substr(0, colon);
  if (how == "begin") {
    *status = ncclSystemError;
    return true;
  }
  device_on_host::get_stuck(stream);
  *status = begin(communicator);
  communicator.broken = how == "async";
  return true;
}

int count_of(std::size_t count) { return static_cast<int>(count); }

/// All ranks' numbers, rank after rank.
std::vector<float> gathered(const void* from, std::size_t count, const ncclComm& communicator) {
  std::vector<float> all(count * static_cast<std::size_t>(communicator.size));
  MPI_Allgather(from, count_of(count), MPI_FLOAT, all.data(), count_of(count), MPI_FLOAT, communicator.ranks);
  return all;
}

std::vector<float> sum_of_all(const void* from, std::size_t count, const ncclComm& communicator) {
  std::vector<float> all = gathered(from, count, communicator);
  for (std::size_t i = count; i < all.size(); ++i) all[i % count] += all[i];
  all.resize(count);
  return all;
}

template <class Body>
ncclResult_t collective(ncclDataType_t type, ncclComm* communicator, cudaStream_t stream, const Body& body) {
  if (type != ncclFloat) return ncclInvalidArgument;
  if (busy(*communicator) || in_group()) return ncclInvalidUsage;
  if (ncclResult_t status = ncclSuccess; fails(*communicator, stream, &status)) return status;
  body();
  return begin(*communicator);
}

}  // namespace

const char* ncclGetErrorString(ncclResult_t status) {
  return status == ncclSuccess        ? "no error"
         : status == ncclSystemError  ? "unhandled system error"
         : status == ncclInvalidUsage ? "invalid usage"
                                      : "invalid argument";
}
const char* ncclGetLastError(ncclComm_t) { return "as $TADAPT_NCCL_FAIL wants it"; }
ncclResult_t ncclGetVersion(int* version) {
  *version = 22809;
  return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  static int made = 0;
  int root = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &root);
  const int words[2] = {root, kFirstTag + made++};
  // With bytes that text would not survive.
  std::memset(id->internal, 0, sizeof id->internal);
  std::memcpy(id->internal + 8, words, sizeof words);
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* made, int ranks, ncclUniqueId id, int rank, ncclConfig_t* config) {
  if (config == nullptr || config->blocking != 0 || rank < 0 || rank >= ranks) return ncclInvalidArgument;
  auto* communicator = new ncclComm;
  *made = communicator;
  communicator->size = ranks;
  if (const char* fail = std::getenv("TADAPT_NCCL_FAIL")) communicator->fail = fail;
  if (communicator->fail.rfind("connect", 0) == 0) return ncclInProgress;
  int words[2], self = 0;
  std::memcpy(words, id.internal + 8, sizeof words);
  const auto [root, tag] = words;
  MPI_Comm_rank(MPI_COMM_WORLD, &self);
  std::vector<int> members(static_cast<std::size_t>(ranks), self);
  if (rank == 0) {
    for (int other = 1; other < ranks; ++other) {
      int entry[2];
      MPI_Recv(entry, 2, MPI_INT, MPI_ANY_SOURCE, tag, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
      members[static_cast<std::size_t>(entry[0])] = entry[1];
    }
    for (int other = 1; other < ranks; ++other)
      MPI_Send(members.data(), ranks, MPI_INT, members[static_cast<std::size_t>(other)], tag, MPI_COMM_WORLD);
  } else {
    const int entry[2] = {rank, self};
    MPI_Send(entry, 2, MPI_INT, root, tag, MPI_COMM_WORLD);
    MPI_Recv(members.data(), ranks, MPI_INT, root, tag, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
  }
  MPI_Group all, own;
  MPI_Comm_group(MPI_COMM_WORLD, &all);
  MPI_Group_incl(all, ranks, members.data(), &own);
  MPI_Comm_create_group(MPI_COMM_WORLD, own, tag, &communicator->ranks);
  MPI_Group_free(&own);
  MPI_Group_free(&all);
  communicator->connected = true;
  return begin(*communicator);
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t communicator, ncclResult_t* state) {
  constexpr int kLooksUntilBroken = 5;
  ++communicator->looks;
  const bool broken = communicator->broken && communicator->looks > kLooksUntilBroken;
  *state = busy(*communicator) ? ncclInProgress : broken ? ncclSystemError : ncclSuccess;
  return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t communicator) {
  if (busy(*communicator)) return ncclInvalidUsage;
  MPI_Barrier(communicator->ranks);
  return begin(*communicator);
}

ncclResult_t ncclCommDestroy(ncclComm_t communicator) {
  if (busy(*communicator)) return ncclInvalidUsage;
  MPI_Comm_free(&communicator->ranks);
  delete communicator;
  return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t communicator) {
  while (communicator->fail.rfind("hang-abort", 0) == 0) std::this_thread::sleep_for(std::chrono::seconds(1));
  delete communicator;  // what MPI keeps of it stays: giving it back would wait for the others
  return ncclSuccess;
}

ncclResult_t ncclAllReduce(const void* from, void* to, std::size_t count, ncclDataType_t type, ncclRedOp_t operation,
                           ncclComm_t communicator, cudaStream_t stream) {
  if (operation != ncclSum) return ncclInvalidArgument;
  return collective(type, communicator, stream, [&] {
    const std::vector<float> sum = sum_of_all(from, count, *communicator);
    std::copy(sum.begin(), sum.end(), static_cast<float*>(to));
  });
}

ncclResult_t ncclReduceScatter(const void* from, void* to, std::size_t count, ncclDataType_t type,
                               ncclRedOp_t operation, ncclComm_t communicator, cudaStream_t stream) {
  if (operation != ncclSum) return ncclInvalidArgument;
  return collective(type, communicator, stream, [&] {
    const std::vector<float> sum =
        sum_of_all(from, count * static_cast<std::size_t>(communicator->size), *communicator);
    int rank = 0;
    MPI_Comm_rank(communicator->ranks, &rank);
    std::copy_n(sum.begin() + static_cast<std::ptrdiff_t>(count) * rank, count, static_cast<float*>(to));
  });
}

ncclResult_t ncclAllGather(const void* from, void* to, std::size_t count, ncclDataType_t type, ncclComm_t communicator,
                           cudaStream_t stream) {
  return collective(type, communicator, stream, [&] {
    const std::vector<float> all = gathered(from, count, *communicator);
    std::copy(all.begin(), all.end(), static_cast<float*>(to));
  });
}

ncclResult_t ncclBroadcast(const void* from, void* to, std::size_t count, ncclDataType_t type, int root,
                           ncclComm_t communicator, cudaStream_t stream) {
  return collective(type, communicator, stream, [&] {
    if (from != to) std::memcpy(to, from, count * sizeof(float));
    MPI_Bcast(to, count_of(count), MPI_FLOAT, root, communicator->ranks);
  });
}

ncclResult_t ncclGroupStart() {
  in_group() = true;
  return ncclSuccess;
}

ncclResult_t ncclSend(const void* from, std::size_t count, ncclDataType_t type, int peer, ncclComm_t communicator,
                      cudaStream_t stream) {
  return ncclRecv(const_cast<void*>(from), count, type, ~peer, communicator, stream);
}

ncclResult_t ncclRecv(void* to, std::size_t count, ncclDataType_t type, int peer, ncclComm_t communicator,
                      cudaStream_t stream) {
  if (type != ncclFloat) return ncclInvalidArgument;
  // Outside a group a send would wait for the receive that comes after it.
  if (busy(*communicator) || !in_group()) return ncclInvalidUsage;
  group().push_back({to, count, peer < 0 ? ~peer : peer, peer >= 0, communicator, stream});
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
  in_group() = false;
  const std::vector<Message> messages = std::exchange(group(), {});
  if (messages.empty()) return ncclSuccess;
  ncclComm& communicator = *messages.front().communicator;
  if (ncclResult_t status = ncclSuccess; fails(communicator, messages.front().stream, &status)) return status;
  std::vector<MPI_Request> requests;
  for (const Message& message : messages) {
    MPI_Request& request = requests.emplace_back();
    if (message.receives)
      MPI_Irecv(message.bytes, count_of(message.count), MPI_FLOAT, message.peer, 0, communicator.ranks, &request);
    else
      MPI_Isend(message.bytes, count_of(message.count), MPI_FLOAT, message.peer, 0, communicator.ranks, &request);
  }
  MPI_Waitall(static_cast<int>(requests.size()), requests.data(), MPI_STATUSES_IGNORE);
  return begin(communicator);
}
