// MpiTransport: messages by MPI, one thread in the library at a time.
#pragma once

#include <mpi.h>

#include <cstdint>
#include <mutex>

#include "runtime/comm/transport.h"

namespace tadapt {

/// Throws CommError("<call>: <MPI's reason>") unless `status` is MPI_SUCCESS.
void check_mpi(int status, const char* call);

class MpiTransport : public Transport {
 public:
  /// A piece of a longer message; MPI counts in int.
  static constexpr std::size_t kPieceBytes = std::size_t{1} << 30;

  /// MPI must be initialised with at least MPI_THREAD_SERIALIZED. `piece_bytes` differs from the default in tests only.
  explicit MpiTransport(MPI_Comm communicator, std::size_t piece_bytes = kPieceBytes);

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::unique_ptr<Transfer> send(int peer, int tag, std::span<const std::byte> bytes) override;
  std::unique_ptr<Transfer> receive(int peer, int tag, std::span<std::byte> bytes) override;

 private:
  MPI_Comm communicator_;
  std::size_t piece_bytes_;
  int rank_ = 0;
  int size_ = 1;
  std::mutex mutex_;
};

}  // namespace tadapt
