// Transport: messages between two ranks, the only thing the exchange algorithms need from MPI (or from a test).
#pragma once

#include <cstddef>
#include <memory>
#include <span>

namespace tadapt {

/// One message under way. Its bytes must stay alive until it is done; destroying it earlier abandons the message.
class Transfer {
 public:
  virtual ~Transfer() = default;
  /// Whether the message has been sent or received; never blocks, and lets all messages get on. Throws CommError,
  /// without naming the operation, when it failed or has another size than was asked for.
  virtual bool done() = 0;
};

/// Point-to-point messages among all ranks of a job. Messages of one (sender, receiver, tag) arrive in order. May be
/// called from several threads.
class Transport {
 public:
  static constexpr int kTagBits = 22;

  virtual ~Transport() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual std::unique_ptr<Transfer> send(int peer, int tag, std::span<const std::byte> bytes) = 0;
  virtual std::unique_ptr<Transfer> receive(int peer, int tag, std::span<std::byte> bytes) = 0;
};

}  // namespace tadapt
