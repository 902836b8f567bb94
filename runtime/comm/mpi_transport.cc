// Non-blocking MPI messages, cut into pieces an int can count.
#include "runtime/comm/mpi_transport.h"

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "kernels/core/error.h"

namespace tadapt {
namespace {

class MpiTransfer : public Transfer {
 public:
  MpiTransfer(std::mutex& mutex, std::size_t expected_bytes) : mutex_(mutex), expected_bytes_(expected_bytes) {}
  ~MpiTransfer() override {
    const std::lock_guard lock(mutex_);
    for (MPI_Request& request : requests_) {
      if (request == MPI_REQUEST_NULL) continue;
      MPI_Cancel(&request);  // takes effect on receives only, whose memory would otherwise still be written
      MPI_Request_free(&request);
    }
  }

  /// Called with the transport's lock held.
  MPI_Request* add_request() { return &requests_.emplace_back(MPI_REQUEST_NULL); }

  bool done() override {
    const std::lock_guard lock(mutex_);
    while (finished_ < requests_.size()) {
      int flag = 0;
      MPI_Status status;
      check_mpi(MPI_Test(&requests_[finished_], &flag, &status), "MPI_Test");
      if (flag == 0) return false;
      int bytes = 0;
      check_mpi(MPI_Get_count(&status, MPI_BYTE, &bytes), "MPI_Get_count");
      received_bytes_ += static_cast<std::size_t>(bytes);
      ++finished_;
    }
    if (is_receive_ && received_bytes_ != expected_bytes_) {
      throw CommError("received {} bytes instead of {}", received_bytes_, expected_bytes_);
    }
    return true;
  }
  void mark_receive() { is_receive_ = true; }

 private:
  std::mutex& mutex_;
  std::vector<MPI_Request> requests_;
  std::size_t finished_ = 0;
  std::size_t expected_bytes_;
  std::size_t received_bytes_ = 0;
  bool is_receive_ = false;
};

/// Calls start(first byte, count) for each piece; an empty message is one empty piece.
template <class Start>
void for_each_piece(std::size_t bytes, std::size_t piece_bytes, const Start& start) {
  std::size_t at = 0;
  do {
    const std::size_t count = std::min(piece_bytes, bytes - at);
    start(at, static_cast<int>(count));
    at += count;
  } while (at < bytes);
}

}  // namespace

void check_mpi(int status, const char* call) {
  if (status == MPI_SUCCESS) return;
  std::array<char, MPI_MAX_ERROR_STRING> reason{};
  int length = 0;
  MPI_Error_string(status, reason.data(), &length);
  throw CommError("{}: {}", call, std::string(reason.data(), static_cast<std::size_t>(length)));
}

MpiTransport::MpiTransport(MPI_Comm communicator, std::size_t piece_bytes)
    : communicator_(communicator), piece_bytes_(piece_bytes) {
  check_mpi(MPI_Comm_set_errhandler(communicator_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  check_mpi(MPI_Comm_rank(communicator_, &rank_), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(communicator_, &size_), "MPI_Comm_size");
  int* largest_tag = nullptr;
  int found = 0;
  check_mpi(MPI_Comm_get_attr(communicator_, MPI_TAG_UB, &largest_tag, &found), "MPI_Comm_get_attr");
  if (found == 0 || *largest_tag < (1 << kTagBits) - 1) {
    throw CommError("this MPI's largest tag is {}, needed is {}", found == 0 ? 0 : *largest_tag, (1 << kTagBits) - 1);
  }
}

std::unique_ptr<Transfer> MpiTransport::send(int peer, int tag, std::span<const std::byte> bytes) {
  auto transfer = std::make_unique<MpiTransfer>(mutex_, bytes.size());
  const std::lock_guard lock(mutex_);
  for_each_piece(bytes.size(), piece_bytes_, [&](std::size_t at, int count) {
    check_mpi(MPI_Isend(bytes.data() + at, count, MPI_BYTE, peer, tag, communicator_, transfer->add_request()),
              "MPI_Isend");
  });
  return transfer;
}

std::unique_ptr<Transfer> MpiTransport::receive(int peer, int tag, std::span<std::byte> bytes) {
  auto transfer = std::make_unique<MpiTransfer>(mutex_, bytes.size());
  transfer->mark_receive();
  const std::lock_guard lock(mutex_);
  for_each_piece(bytes.size(), piece_bytes_, [&](std::size_t at, int count) {
    check_mpi(MPI_Irecv(bytes.data() + at, count, MPI_BYTE, peer, tag, communicator_, transfer->add_request()),
              "MPI_Irecv");
  });
  return transfer;
}

}  // namespace tadapt
