// The exceptions of tadapt, each with the exit code it ends a process with.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace tadapt {

/// Exit codes of every tadapt command (sysexits.h where it has one).
enum class ExitCode : int {
  kDone = 0,
  kNonFinite = 3,      ///< the non-finite policy stopped the run
  kPeerFailed = 4,     ///< another rank failed
  kWatchdog = 5,       ///< a wait outlasted its bound
  kBadData = 65,       ///< a file is there but its content is wrong
  kMissingInput = 66,  ///< a file is not there or not readable
  kInternal = 70,      ///< a fault of ours
  kCannotWrite = 73,   ///< an output cannot be written
  kRequeue = 75,       ///< saved on a signal; start the same command again
  kBadConfig = 78,     ///< configuration or command line is wrong
};

/// Base of all errors thrown by tadapt: one line that names the thing, what was expected and what was found.
class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

namespace detail {
/// An Error whose message is formatted where it is thrown: `throw DataError("{}: chunk {} …", path, i)`.
template <ExitCode kCode>
class FormattedError : public Error {
 public:
  template <class... Args>
  explicit FormattedError(fmt::format_string<Args...> format, Args&&... args)
      : Error(kCode, fmt::format(format, std::forward<Args>(args)...)) {}
};
}  // namespace detail

/// Tensors handed to an op do not fit together: always a fault of the caller, never of a user's file.
class ShapeError : public detail::FormattedError<ExitCode::kInternal> {
  using FormattedError::FormattedError;
};
/// A configuration value, YAML key or flag is wrong.
class ConfigError : public detail::FormattedError<ExitCode::kBadConfig> {
  using FormattedError::FormattedError;
};
/// A file's content is wrong; the message names file, dataset or tensor, and offset where known.
class DataError : public detail::FormattedError<ExitCode::kBadData> {
  using FormattedError::FormattedError;
};
/// A file that must be read is missing or unreadable.
class MissingInputError : public detail::FormattedError<ExitCode::kMissingInput> {
  using FormattedError::FormattedError;
};
/// An output cannot be written; the message names path, bytes and the system's reason.
class WriteError : public detail::FormattedError<ExitCode::kCannotWrite> {
  using FormattedError::FormattedError;
};
/// A device call failed, or a device that was asked for is not there.
class DeviceError : public detail::FormattedError<ExitCode::kInternal> {
  using FormattedError::FormattedError;
};
/// A collective failed; the message names rank, peer and operation.
class CommError : public detail::FormattedError<ExitCode::kPeerFailed> {
  using FormattedError::FormattedError;
};
/// A bounded wait ran out; the message names rank, operation and bound.
class WatchdogError : public detail::FormattedError<ExitCode::kWatchdog> {
  using FormattedError::FormattedError;
};
/// A non-finite number where none may be; the message names layer, tensor, step and samples.
class NonFiniteError : public detail::FormattedError<ExitCode::kNonFinite> {
  using FormattedError::FormattedError;
};

/// Throws ShapeError unless `ok`. Checks are always on, in every build.
template <class... Args>
void require_shape(bool ok, fmt::format_string<Args...> format, Args&&... args) {
  if (!ok) throw ShapeError(format, std::forward<Args>(args)...);
}

}  // namespace tadapt
