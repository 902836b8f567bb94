#include "runtime/analysis/judge_client.h"

#include <xxhash.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>

#include "data/json.h"
#include "data/json_field.h"
#include "kernels/core/random.h"
#include "runtime/analysis/judge_transfers.h"

namespace tadapt {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

constexpr double kLongestPause = 60.0;
constexpr double kLongestRetryAfter = 3600.0;
constexpr double kTellPausesFrom = 5.0;
/// A stop is seen within this time.
constexpr double kLongestWait = 0.2;

Clock::duration seconds(double count) {
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(count));
}

/// "https://host/v1" -> "https://host/v1/chat/completions".
std::string completions_url(std::string endpoint) {
  const bool is_http = endpoint.starts_with("http://") || endpoint.starts_with("https://");
  if (!is_http || endpoint.find_first_of("@?# ") != endpoint.npos || endpoint.ends_with("://"))
    throw ConfigError("--endpoint: expected http[s]://HOST[:PORT][/PATH], without user, key or query, found {}",
                      in_quotes(endpoint));
  while (endpoint.ends_with('/')) endpoint.pop_back();
  return endpoint + "/chat/completions";
}

/// What an endpoint says of a failure: {"error": {"message": …}} and its like, else the beginning of the body.
std::string message_in(const std::string& body) {
  const nlohmann::json json = nlohmann::json::parse(body, nullptr, false);
  if (json.is_object()) {
    const auto error = json.find("error");
    const nlohmann::json& inner = error != json.end() && error->is_object() ? *error : json;
    for (const char* key : {"message", "error", "detail"}) {
      const auto found = inner.find(key);
      if (found != inner.end() && found->is_string()) return in_quotes(found->get_ref<const std::string&>());
    }
  }
  return body.empty() ? "no text" : in_quotes(body);
}

/// Whether the same request may well succeed later.
bool is_passing(long status) { return status == 408 || status == 429 || (500 <= status && status < 600); }
/// Whether the request is refused for what is in it.
bool is_about_content(long status) { return status == 400 || status == 413 || status == 422; }

class Asking {
 public:
  Asking(const JudgeOptions& options, const JudgeWork& work)
      : options_(options),
        work_(work),
        url_(completions_url(options.endpoint)),
        slots_(static_cast<std::size_t>(options.concurrency)),
        transfers_({.url = url_, .key = options.key, .timeout_seconds = options.timeout_seconds}, slots_.size()) {}

  bool run() {
    for (;;) {
      if (work_.stop_requested()) return false;
      if (!start()) return true;
      for (const auto& [slot, reply] : transfers_.wait(idle_seconds())) {
        slots_[slot].under_way = false;
        take(slots_[slot], reply);
      }
    }
  }

 private:
  /// A question until it is answered.
  struct Slot {
    std::optional<LabelQuestion> question;
    int attempts = 0;  ///< that have ended
    bool under_way = false;
    std::string refusal;  ///< of what is in the question; it waits to see whether others fare better
    Clock::time_point not_before = {};
    std::int64_t prompt_tokens = 0, answer_tokens = 0;
  };

  /// Fills free slots and posts what is due. False when nothing is left.
  bool start() {
    bool anything = false;
    for (std::size_t i = 0; i < slots_.size(); ++i) {
      Slot& slot = slots_[i];
      if (!slot.question && !at_end_) {
        slot.question = work_.next();
        at_end_ = !slot.question;
      }
      if (!slot.question) continue;
      anything = true;
      if (!waits(slot) || Clock::now() < due(slot)) continue;
      transfers_.post(i, request_body(options_, *slot.question).dump());
      slot.under_way = true;
      if (options_.requests_per_minute > 0.0) next_start_ = Clock::now() + seconds(60.0 / options_.requests_per_minute);
    }
    return anything;
  }

  static bool waits(const Slot& slot) { return slot.question && !slot.under_way && slot.refusal.empty(); }
  Clock::time_point due(const Slot& slot) const { return std::max({slot.not_before, next_start_, resume_}); }

  double idle_seconds() const {
    double wait = kLongestWait;
    for (const Slot& slot : slots_)
      if (waits(slot)) wait = std::min(wait, std::chrono::duration<double>(due(slot) - Clock::now()).count());
    return std::max(wait, 0.0);
  }

  void take(Slot& slot, const JudgeReply& reply) {
    ++slot.attempts;
    if (!reply.failure.empty()) return take_failure(slot, reply);
    if (reply.status == 200) return take_answer(slot, read_completion(reply.body));
    const std::string found = fmt::format("HTTP {}: {}", reply.status, message_in(reply.body));
    if (is_passing(reply.status)) {
      if (is_last(slot)) throw CommError("{}: {} (asked {} times)", url_, found, slot.attempts);
      obey(reply);
      return wait(slot);
    }
    if (is_about_content(reply.status)) {
      slot.refusal = found;
      return settle_refusals();
    }
    const bool is_about_key = reply.status == 401 || reply.status == 403;
    throw ConfigError("{}: {}{}", url_, found,
                      is_about_key && options_.key.empty()
                          ? fmt::format(" (no key was sent: ${} is not set)", options_.key_variable)
                          : "");
  }

  void take_failure(Slot& slot, const JudgeReply& reply) {
    if (reply.hopeless) throw ConfigError("{}: {}", url_, reply.failure);
    if (!is_last(slot)) return wait(slot);
    if (reply.timed_out)
      throw WatchdogError("{}: no answer within {} s (asked {} times)", url_, options_.timeout_seconds, slot.attempts);
    throw CommError("{}: {} (asked {} times)", url_, reply.failure, slot.attempts);
  }

  void take_answer(Slot& slot, JudgeAnswer answer) {
    slot.prompt_tokens += answer.prompt_tokens;
    slot.answer_tokens += answer.answer_tokens;
    if (answer.problem.empty()) answer.problem = work_.problem_of(*slot.question, answer.text);
    if (!answer.problem.empty() && !is_last(slot)) return;
    finish(slot, std::move(answer));
    settle_refusals();
  }

  /// Refused questions are to blame themselves if others are answered, and the request's form if all are refused.
  void settle_refusals() {
    const auto has_hope = [](const Slot& slot) { return slot.question && slot.refusal.empty(); };
    if (!answered_ && std::ranges::any_of(slots_, has_hope)) return;
    for (Slot& slot : slots_) {
      if (slot.refusal.empty()) continue;
      if (!answered_) throw ConfigError("{}: {}", url_, slot.refusal);
      finish(slot, {.text = "", .problem = slot.refusal});
    }
  }

  void finish(Slot& slot, JudgeAnswer answer) {
    answer.prompt_tokens = slot.prompt_tokens;
    answer.answer_tokens = slot.answer_tokens;
    answered_ = true;
    work_.take(*slot.question, answer);
    slot = {};
  }

  bool is_last(const Slot& slot) const { return slot.attempts > options_.retries; }

  /// Before the next attempt: exponential, times a number in [½, 1) so that questions do not come back all at once.
  void wait(Slot& slot) const {
    const std::string& id = slot.question->id;
    const RandomStream random(0, RandomPurpose::kRetries, static_cast<std::uint64_t>(slot.attempts),
                              XXH3_64bits(id.data(), id.size()) >> 16);
    const double pause = std::min(kLongestPause, options_.retry_seconds * std::exp2(slot.attempts - 1));
    slot.not_before = Clock::now() + seconds(pause * (0.5 + 0.5 * static_cast<double>(random.uniform(0))));
  }

  /// A limit is that of the key, not of the question that met it.
  void obey(const JudgeReply& reply) {
    const double pause = reply.retry_after_seconds;
    if (pause <= 0.0) return;
    if (pause > kLongestRetryAfter)
      throw CommError("{}: HTTP {} and Retry-After of {} s, expected at most {} s; start again later", url_,
                      reply.status, pause, kLongestRetryAfter);
    const Clock::time_point resume = Clock::now() + seconds(pause);
    if (resume <= resume_) return;
    if (pause >= kTellPausesFrom && Clock::now() >= resume_)
      work_.print(fmt::format("label: {} answers HTTP {}: waiting {} s as it asks", url_, reply.status, pause));
    resume_ = resume;
  }

  const JudgeOptions& options_;
  const JudgeWork& work_;
  std::string url_;
  std::vector<Slot> slots_;
  JudgeTransfers transfers_;
  bool at_end_ = false, answered_ = false;
  Clock::time_point next_start_ = {}, resume_ = {};
};

}  // namespace

Json request_body(const JudgeOptions& options, const LabelQuestion& question) {
  Json body = {{"model", options.model}, {"messages", question.messages}};
  body.update(options.members);
  return body;
}

JudgeAnswer read_completion(const std::string& body) {
  constexpr std::int64_t kMost = std::int64_t{1} << 40;
  try {
    const nlohmann::json json = parse_json(body, "the endpoint's answer");
    const JsonField root(json, "the endpoint's answer");
    if (root["choices"].array().empty()) root["choices"].expected("a choice");
    JudgeAnswer answer{.text = root["choices"].at(0)["message"]["content"].string(), .problem = ""};
    if (const JsonField usage = root["usage"]; usage.present()) {
      const auto count = [&](const char* key) { return usage[key].present() ? usage[key].integer(0, kMost) : 0; };
      answer.prompt_tokens = count("prompt_tokens");
      answer.answer_tokens = count("completion_tokens");
    }
    return answer;
  } catch (const DataError& error) {
    return {.text = body, .problem = error.what()};
  }
}

bool ask_judge(const JudgeOptions& options, const JudgeWork& work) { return Asking(options, work).run(); }

}  // namespace tadapt
