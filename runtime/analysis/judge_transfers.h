// JudgeTransfers: HTTP requests to one URL, several at a time; the only place that knows libcurl.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace tadapt {

/// What became of a request.
struct JudgeReply {
  std::string failure;               ///< why there is no answer ("Couldn't connect to server"); empty: there is one
  bool timed_out = false;            ///< it took longer than timeout_seconds
  bool hopeless = false;             ///< the same would happen again: a wrong URL, a certificate that is not trusted
  long status = 0;                   ///< 200, 429, …
  double retry_after_seconds = 0.0;  ///< as the server wants it; 0: it says nothing
  std::string body;
};

class JudgeTransfers {
 public:
  struct Options {
    std::string url;
    std::string key;  ///< sent as `Authorization: Bearer`; empty: none. Cut out of all that comes back
    double timeout_seconds = 120.0;
  };
  /// For that many requests at a time.
  JudgeTransfers(const Options& options, std::size_t slots);
  ~JudgeTransfers();

  /// Begins to post a JSON text; a slot has one request at a time.
  void post(std::size_t slot, std::string body);
  /// Waits at most so long for replies; each with its slot.
  std::vector<std::pair<std::size_t, JudgeReply>> wait(double seconds);

 private:
  class Connections;
  std::unique_ptr<Connections> connections_;
};

}  // namespace tadapt
