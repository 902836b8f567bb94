#include "runtime/eval/responses.h"

#include <xxhash.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "data/json.h"
#include "runtime/eval/rounds.h"
#include "runtime/train/agreement.h"

namespace tadapt {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using Key = std::pair<std::int64_t, std::int64_t>;  // prompt, sample

constexpr char kPart[] = ".part-";
constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 36;  ///< of a file of responses

std::string fingerprint(const ResponseJob& job) {
  const GenerationOptions& options = job.options;
  std::string text = fmt::format("{} {} {} {} {} {}", job.identity, options.rule.temperature, options.rule.top_p,
                                 options.max_new_tokens, options.seed, job.samples);
  for (const std::int32_t id : options.stop_tokens) text += fmt::format(" {}", id);
  for (const Prompt& prompt : job.prompts)
    text.append(reinterpret_cast<const char*>(prompt.ids.data()), prompt.ids.size() * sizeof(std::int32_t)) += '\n';
  return fmt::format("{:016x}", XXH3_64bits(text.data(), text.size()));
}

std::string line_of(const ResponseJob& job, const std::string& fingerprint, const Response& response) {
  const Json line = {{"job", fingerprint},
                     {"prompt", response.prompt},
                     {"sample", response.sample},
                     {"stop", response.reason},
                     {"tokens", response.ids.size()},
                     {"ids", response.ids},
                     {"conversations",
                      {{{"from", "human"}, {"value", job.prompts[static_cast<std::size_t>(response.prompt)].question}},
                       {{"from", "gpt"}, {"value", response_text(job, response, response.ids.size())}}}}};
  // A response may end inside a character.
  return line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

/// The responses in whole lines of a file. What a process was writing when it died is no whole line.
void read_lines(const std::string& text, const fs::path& path, const std::string& fingerprint,
                std::map<Key, Response>& found) {
  for (std::size_t begin = 0, end; (end = text.find('\n', begin)) != text.npos; begin = end + 1) {
    const std::string_view line = std::string_view(text).substr(begin, end - begin);
    try {
      const nlohmann::json object = parse_json(line, path);
      if (object.at("job") != fingerprint)
        throw ConfigError("{}: holds responses of another job (other models, prompts or options); choose another place",
                          path.string());
      Response response{.prompt = object.at("prompt"),
                        .sample = object.at("sample"),
                        .ids = object.at("ids").get<std::vector<std::int32_t>>(),
                        .reason = object.at("stop")};
      found.insert_or_assign({response.prompt, response.sample}, std::move(response));
    } catch (const nlohmann::json::exception&) {
      throw DataError("{}: a line that is no response: {}", path.string(), in_quotes(line.substr(0, 60)));
    }
  }
}

/// Responses that are there already, moved into one part; on every rank.
class Journal {
 public:
  Journal(const ResponseJob& job, const RunEnvironment& environment, std::string fingerprint)
      : job_(job), environment_(environment), fingerprint_(std::move(fingerprint)) {
    const std::string kept = on_rank_zero(environment.world, [&] { return job.file.empty() ? "" : collect(); });
    read_lines(kept, job.file, fingerprint_, found_);
    if (job.file.empty()) return;
    agree(environment.world,
          [&] { part_ = environment.files.open(part(environment.world.rank()), OpenMode::kCreate); });
  }

  const std::map<Key, Response>& found() const { return found_; }

  void add(Response response) {
    const std::string line = line_of(job_, fingerprint_, response);
    if (part_) {
      part_->write(written_, std::as_bytes(std::span(line)));
      written_ += line.size();
    }
    mine_ += line;
  }

  /// Everybody's responses on rank 0, and the file written.
  std::vector<Response> finish() {
    const std::vector<std::string> texts = environment_.world.all_gather_text(mine_, "responses");
    std::vector<Response> all;
    on_rank_zero(environment_.world, [&] {
      for (const std::string& text : texts) read_lines(text, job_.file, fingerprint_, found_);
      for (auto& [key, response] : found_) all.push_back(std::move(response));
      if (job_.file.empty()) return std::string();
      std::string lines;
      for (const Response& response : all) lines += line_of(job_, fingerprint_, response);
      write_atomically(environment_.files, job_.file, lines);
      for (const fs::path& path : parts()) environment_.files.remove(path);
      return std::string();
    });
    return all;
  }

 private:
  fs::path part(int number) const {
    fs::path path = job_.file;
    return path += fmt::format("{}{}", kPart, number);
  }

  std::vector<fs::path> parts() const {
    const fs::path folder = job_.file.parent_path();
    const std::string start = job_.file.filename().string() + kPart;
    std::vector<fs::path> paths;
    for (const std::string& name : environment_.files.list(folder))
      if (name.starts_with(start)) paths.push_back(folder / name);
    return paths;
  }

  /// All lines that are there, in one part of which no rank writes.
  std::string collect() const {
    FileSystem& files = environment_.files;
    files.make_directories(job_.file.parent_path());
    std::map<Key, Response> there;
    std::vector<fs::path> paths = parts();
    if (files.exists(job_.file)) paths.push_back(job_.file);
    for (const fs::path& path : paths) read_lines(read_text(files, path, kMostBytes), path, fingerprint_, there);
    std::string lines;
    for (const auto& [key, response] : there) lines += line_of(job_, fingerprint_, response);
    constexpr int kKept = 1'000'000;  // beyond any rank
    if (!lines.empty()) write_atomically(files, part(kKept), lines);
    for (const fs::path& path : parts())
      if (path != part(kKept)) files.remove(path);
    return lines;
  }

  const ResponseJob& job_;
  const RunEnvironment& environment_;
  std::string fingerprint_;
  std::map<Key, Response> found_;
  std::unique_ptr<File> part_;
  std::uint64_t written_ = 0;
  std::string mine_;
};

/// This rank's share of what is missing.
std::vector<Key> keys_of_rank(const ResponseJob& job, const std::map<Key, Response>& found, const Communicator& world) {
  std::vector<Key> keys;
  std::int64_t missing = 0;
  for (std::int64_t prompt = 0; prompt < static_cast<std::int64_t>(job.prompts.size()); ++prompt) {
    for (std::int64_t sample = 0; sample < job.samples; ++sample) {
      if (found.contains({prompt, sample})) continue;
      if (missing++ % world.size() == world.rank()) keys.emplace_back(prompt, sample);
    }
  }
  return keys;
}

}  // namespace

std::vector<Response> sample_responses(const ResponseJob& job, const RunEnvironment& environment) {
  Journal journal(job, environment, fingerprint(job));
  const std::vector<Key> keys = keys_of_rank(job, journal.found(), environment.world);
  std::vector<GenerationRequest> requests;
  for (const auto& [prompt, sample] : keys)
    requests.push_back(
        {.prompt = job.prompts[static_cast<std::size_t>(prompt)].ids,
         .sample = static_cast<std::uint64_t>(sample) << 32 | static_cast<std::uint64_t>(prompt),
         .name = fmt::format("{}: sample {}", job.prompts[static_cast<std::size_t>(prompt)].place, sample)});
  Rounds rounds(environment, {.name = job.name,
                              .unit = "responses",
                              .total = static_cast<std::int64_t>(job.prompts.size()) * job.samples,
                              .done = static_cast<std::int64_t>(journal.found().size()),
                              .every_seconds = job.progress_seconds,
                              .phase = "generation",
                              .note = [](double tokens, double seconds) {
                                return count_text(tokens / std::max(1e-9, seconds)) + " tokens/s";
                              }});
  GenerationListener listener{.token = {},
                              .done =
                                  [&](std::size_t request, Generated generated) {
                                    rounds.count();
                                    journal.add({.prompt = keys[request].first,
                                                 .sample = keys[request].second,
                                                 .ids = std::move(generated.ids),
                                                 .reason = name(generated.reason)});
                                  },
                              .step = [&](std::int64_t tokens) { rounds.step(static_cast<double>(tokens)); }};
  if (job.stream) listener.token = [&](std::size_t, std::int32_t token) { job.stream(token); };
  try {
    generate(environment.context, job.model, requests, job.options, listener);
    rounds.finish();
  } catch (const Stopped&) {  // on all ranks in one round
    agree(environment.world, [&] {
      throw Error(ExitCode::kRequeue, job.file.empty() ? "generation stopped on a signal; nothing was written"
                                                       : "generation stopped on a signal; start it again to go on");
    });
  }
  return journal.finish();
}

std::string response_lines(const ResponseJob& job, const std::vector<Response>& responses) {
  const std::string identity = fingerprint(job);
  std::string lines;
  for (const Response& response : responses) lines += line_of(job, identity, response);
  return lines;
}

std::string response_text(const ResponseJob& job, const Response& response, std::size_t tokens) {
  return job.prompts[static_cast<std::size_t>(response.prompt)].opening +
         job.tokenizer.decode(std::span(response.ids).first(tokens));
}

}  // namespace tadapt
