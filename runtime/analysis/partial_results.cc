#include "runtime/analysis/partial_results.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <sstream>

#include "data/json.h"
#include "runtime/train/agreement.h"

namespace tadapt {
namespace {

namespace fs = std::filesystem;

constexpr char kEnding[] = ".part";
constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 38;

std::uint32_t checksum(std::string_view text) { return crc32c(std::as_bytes(std::span(text))); }

/// The first number of a file's name.
std::int64_t generation_of(const std::string& name) {
  std::int64_t generation = 0;
  std::from_chars(name.data(), name.data() + name.size(), generation);
  return generation;
}

}  // namespace

PartialResults::PartialResults(const RunEnvironment& environment, fs::path directory, const std::string& job,
                               std::vector<LayerRecords>& records)
    : environment_(environment), directory_(std::move(directory)), job_(job), records_(records) {
  std::istringstream chosen(on_rank_zero(environment.world, [&] { return choose(); }));
  std::int64_t generation = 0;
  chosen >> generation;
  name_ = fmt::format("{:06d}-{:06d}{}", generation, environment.world.rank(), kEnding);
  agree(environment.world, [&] {
    std::string name;
    for (int i = 0; chosen >> name; ++i) {
      if (i % environment.world.size() != environment.world.rank()) continue;
      environment.heartbeat("taking up partial results");
      std::string body;
      mine_.add(read(name, &body).done);
      std::string_view rest = body;
      for (LayerRecords& layer : records_) {
        std::uint64_t bytes = 0;
        if (rest.size() < sizeof(bytes)) throw DataError("{}: ends too early", (directory_ / name).string());
        std::memcpy(&bytes, rest.data(), sizeof(bytes));
        rest.remove_prefix(sizeof(bytes));
        layer.merge(rest.substr(0, bytes), (directory_ / name).string());
        rest.remove_prefix(std::min<std::size_t>(bytes, rest.size()));
      }
      replaced_.push_back(directory_ / name);
    }
  });
  saved_ = mine_.size();
  for (const std::string& ranges : environment.world.all_gather_text(mine_.to_text(), "what is done already"))
    found_.add(IndexSet::from_text(ranges, "another rank"));
}

/// On one rank: the next generation, and the names of files that have nothing in common. What these hold too goes.
std::string PartialResults::choose() {
  FileSystem& files = environment_.files;
  files.make_directories(directory_);
  std::vector<Entry> entries;
  std::int64_t generation = 0;
  for (const std::string& name : files.list(directory_)) {
    generation = std::max(generation, generation_of(name) + 1);
    if (!name.ends_with(kEnding)) continue;
    try {
      entries.push_back(read(name, nullptr));
    } catch (const DataError& error) {
      environment_.print(fmt::format("{}: left out, its conversations are done again", error.what()));
      files.remove(directory_ / name);
    }
  }
  std::ranges::sort(entries, [](const Entry& a, const Entry& b) {
    return a.done.size() != b.done.size() ? a.done.size() > b.done.size() : a.name < b.name;
  });
  std::string chosen = std::to_string(generation);
  IndexSet taken;
  for (const Entry& entry : entries) {
    if (taken.overlaps(entry.done)) {
      files.remove(directory_ / entry.name);
      continue;
    }
    taken.add(entry.done);
    chosen += " " + entry.name;
  }
  return chosen;
}

PartialResults::Entry PartialResults::read(const std::string& name, std::string* body) const {
  const fs::path path = directory_ / name;
  const std::string text = read_text(environment_.files, path, kMostBytes);
  const std::size_t end = text.find('\n');
  if (end == std::string::npos) throw DataError("{}: no partial result", path.string());
  const std::string_view content = std::string_view(text).substr(end + 1);
  const nlohmann::json head = parse_json(std::string_view(text).substr(0, end), path);
  try {
    if (head.at("job").get<std::string>() != job_)
      throw ConfigError("{}: belongs to a collection with other adapters, corpus or options; choose another --out",
                        directory_.string());
    if (head.at("bytes").get<std::uint64_t>() != content.size() ||
        head.at("crc32c").get<std::uint32_t>() != checksum(content))
      throw DataError("{}: its bytes are not those that were written", path.string());
    if (body != nullptr) *body = content;
    return {name, IndexSet::from_text(head.at("done").get<std::string>(), path.string())};
  } catch (const nlohmann::json::exception&) {
    throw DataError("{}: no partial result", path.string());
  }
}

void PartialResults::add(std::int64_t begin, std::int64_t end) { mine_.add(begin, end); }

void PartialResults::save() {
  if (saved()) return;
  std::string content;
  for (const LayerRecords& layer : records_) {
    const std::string bytes = layer.encoded();
    const std::uint64_t size = bytes.size();
    content.append(reinterpret_cast<const char*>(&size), sizeof(size)).append(bytes);
  }
  const nlohmann::ordered_json head = {
      {"job", job_}, {"done", mine_.to_text()}, {"bytes", content.size()}, {"crc32c", checksum(content)}};
  write_atomically(environment_.files, directory_ / name_, head.dump() + "\n" + content);
  for (const fs::path& path : replaced_) environment_.files.remove(path);
  replaced_.clear();
  saved_ = mine_.size();
}

}  // namespace tadapt
