#include "runtime/analysis/judge_transfers.h"

#include <curl/curl.h>

#include <algorithm>
#include <cmath>

#include "kernels/core/error.h"

namespace tadapt {
namespace {

/// An answer that is longer is no answer.
constexpr std::size_t kMostBodyBytes = std::size_t{16} << 20;

void require(CURLcode code, const char* call) {
  if (code != CURLE_OK) throw CommError("{}: {}", call, curl_easy_strerror(code));
}
void require(CURLMcode code, const char* call) {
  if (code != CURLM_OK) throw CommError("{}: {}", call, curl_multi_strerror(code));
}

/// The library, started and ended.
struct Library {
  Library() { require(curl_global_init(CURL_GLOBAL_DEFAULT), "curl_global_init"); }
  ~Library() { curl_global_cleanup(); }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;
};

struct Headers {
  curl_slist* list = nullptr;

  Headers() = default;
  ~Headers() { curl_slist_free_all(list); }
  Headers(const Headers&) = delete;
  Headers& operator=(const Headers&) = delete;
  void add(const std::string& line) {
    curl_slist* longer = curl_slist_append(list, line.c_str());
    if (longer == nullptr) throw CommError("curl_slist_append: out of memory");
    list = longer;
  }
};

struct EndEasy {
  void operator()(CURL* easy) const { curl_easy_cleanup(easy); }
};
struct EndMulti {
  void operator()(CURLM* multi) const { curl_multi_cleanup(multi); }
};

struct Slot {
  std::unique_ptr<CURL, EndEasy> easy{curl_easy_init()};
  std::string request, body;
};

std::size_t receive(char* bytes, std::size_t size, std::size_t count, void* slot) {
  std::string& body = static_cast<Slot*>(slot)->body;
  if (body.size() + size * count > kMostBodyBytes) return 0;  // which ends the transfer
  body.append(bytes, size * count);
  return size * count;
}

std::string without(std::string text, const std::string& secret) {
  if (secret.empty()) return text;
  for (std::size_t at = 0; (at = text.find(secret, at)) != text.npos;) text.replace(at, secret.size(), "…");
  return text;
}

bool is_hopeless(CURLcode code) {
  return code == CURLE_URL_MALFORMAT || code == CURLE_UNSUPPORTED_PROTOCOL || code == CURLE_PEER_FAILED_VERIFICATION ||
         code == CURLE_SSL_CACERT_BADFILE;
}

}  // namespace

class JudgeTransfers::Connections {
 public:
  Connections(const Options& options, std::size_t slots) : key_(options.key), multi_(curl_multi_init()), slots_(slots) {
    if (multi_ == nullptr) throw CommError("curl_multi_init failed");
    headers_.add("Content-Type: application/json");
    headers_.add("Expect:");  // no waiting for "100 Continue"
    if (!key_.empty()) headers_.add(fmt::format("Authorization: Bearer {}", key_));
    const auto timeout_ms = static_cast<long>(std::ceil(1000.0 * options.timeout_seconds));
    for (Slot& slot : slots_) {
      CURL* easy = slot.easy.get();
      if (easy == nullptr) throw CommError("curl_easy_init failed");
      require(curl_easy_setopt(easy, CURLOPT_URL, options.url.c_str()), "CURLOPT_URL");
      require(curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https"), "CURLOPT_PROTOCOLS_STR");
      require(curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers_.list), "CURLOPT_HTTPHEADER");
      require(curl_easy_setopt(easy, CURLOPT_USERAGENT, "tadapt-dist/" TADAPT_VERSION), "CURLOPT_USERAGENT");
      require(curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L), "CURLOPT_NOSIGNAL");
      require(curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, timeout_ms), "CURLOPT_TIMEOUT_MS");
      require(curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, receive), "CURLOPT_WRITEFUNCTION");
      require(curl_easy_setopt(easy, CURLOPT_WRITEDATA, &slot), "CURLOPT_WRITEDATA");
      require(curl_easy_setopt(easy, CURLOPT_PRIVATE, &slot), "CURLOPT_PRIVATE");
    }
  }
  ~Connections() {
    for (const Slot& slot : slots_) curl_multi_remove_handle(multi_.get(), slot.easy.get());
  }
  Connections(const Connections&) = delete;
  Connections& operator=(const Connections&) = delete;

  void post(std::size_t number, std::string body) {
    Slot& slot = slots_[number];
    slot.request = std::move(body);
    slot.body.clear();
    CURL* easy = slot.easy.get();
    require(curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(slot.request.size())),
            "CURLOPT_POSTFIELDSIZE_LARGE");
    require(curl_easy_setopt(easy, CURLOPT_POSTFIELDS, slot.request.data()), "CURLOPT_POSTFIELDS");
    require(curl_multi_add_handle(multi_.get(), easy), "curl_multi_add_handle");
  }

  std::vector<std::pair<std::size_t, JudgeReply>> wait(double seconds) {
    int running = 0;
    require(curl_multi_perform(multi_.get(), &running), "curl_multi_perform");
    std::vector<std::pair<std::size_t, JudgeReply>> replies = finished();
    if (!replies.empty()) return replies;
    const int milliseconds = static_cast<int>(std::ceil(1000.0 * std::clamp(seconds, 0.0, 1000.0)));
    require(curl_multi_poll(multi_.get(), nullptr, 0, milliseconds, nullptr), "curl_multi_poll");
    require(curl_multi_perform(multi_.get(), &running), "curl_multi_perform");
    return finished();
  }

 private:
  std::vector<std::pair<std::size_t, JudgeReply>> finished() {
    std::vector<std::pair<std::size_t, JudgeReply>> replies;
    int left = 0;
    while (const CURLMsg* message = curl_multi_info_read(multi_.get(), &left)) {
      if (message->msg != CURLMSG_DONE) continue;
      CURL* easy = message->easy_handle;
      const CURLcode code = message->data.result;  // the message is gone with its handle
      Slot* slot = nullptr;
      curl_easy_getinfo(easy, CURLINFO_PRIVATE, &slot);
      replies.emplace_back(static_cast<std::size_t>(slot - slots_.data()), reply_of(*slot, code));
      require(curl_multi_remove_handle(multi_.get(), easy), "curl_multi_remove_handle");
    }
    return replies;
  }

  JudgeReply reply_of(Slot& slot, CURLcode code) const {
    JudgeReply reply{.failure = code == CURLE_OK ? "" : curl_easy_strerror(code),
                     .timed_out = code == CURLE_OPERATION_TIMEDOUT,
                     .hopeless = is_hopeless(code),
                     .body = without(std::move(slot.body), key_)};
    if (code == CURLE_WRITE_ERROR) reply.failure = fmt::format("an answer of more than {} MiB", kMostBodyBytes >> 20);
    curl_off_t retry_after = 0;
    curl_easy_getinfo(slot.easy.get(), CURLINFO_RESPONSE_CODE, &reply.status);
    curl_easy_getinfo(slot.easy.get(), CURLINFO_RETRY_AFTER, &retry_after);
    reply.retry_after_seconds = static_cast<double>(retry_after);
    return reply;
  }

  Library library_;
  std::string key_;
  Headers headers_;
  std::unique_ptr<CURLM, EndMulti> multi_;
  std::vector<Slot> slots_;
};

JudgeTransfers::JudgeTransfers(const Options& options, std::size_t slots)
    : connections_(std::make_unique<Connections>(options, slots)) {}

JudgeTransfers::~JudgeTransfers() = default;

void JudgeTransfers::post(std::size_t slot, std::string body) { connections_->post(slot, std::move(body)); }

std::vector<std::pair<std::size_t, JudgeReply>> JudgeTransfers::wait(double seconds) {
  return connections_->wait(seconds);
}

}  // namespace tadapt
