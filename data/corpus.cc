// Blockwise line reading and checked conversations.
#include "data/corpus.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>

#include "data/json.h"
#include "data/json_field.h"
#include "kernels/core/error.h"

namespace tadapt {
namespace {

constexpr std::size_t kBlockBytes = 1 << 20;
constexpr std::size_t kLineCap = 64 << 20;

bool is_blank(const std::string& line) { return line.find_first_not_of(" \t\r") == std::string::npos; }

Turn read_turn(const JsonField& field) {
  const std::string& from = field["from"].string();
  Turn turn{Role::kUser, field["value"].string()};
  if (from == "gpt" || from == "assistant") {
    turn.role = Role::kAssistant;
  } else if (from == "system") {
    turn.role = Role::kSystem;
  } else if (from != "human" && from != "user") {
    throw DataError("{}: expected human, gpt or system, found {}", field["from"].place(), in_quotes(from));
  }
  if (turn.text.empty()) throw DataError("{}: empty text", field["value"].place());
  return turn;
}

void check_order(const std::vector<Turn>& turns, const JsonField& conversations) {
  const std::size_t first = !turns.empty() && turns[0].role == Role::kSystem ? 1 : 0;
  for (std::size_t i = first; i < turns.size(); ++i) {
    const Role due = (i - first) % 2 == 0 ? Role::kUser : Role::kAssistant;
    if (turns[i].role == due) continue;
    throw DataError("{}: expected a turn from {}", conversations.at(i).place(), due == Role::kUser ? "human" : "gpt");
  }
  if (turns.size() < first + 2 || turns.back().role != Role::kAssistant) {
    throw DataError("{}: expected turns from human and gpt, the last from gpt", conversations.place());
  }
}

}  // namespace

CorpusReader::CorpusReader(FileSystem& files, const std::filesystem::path& path)
    : path_(path), file_(files.open(path, OpenMode::kRead)), bytes_(file_->size()) {}

void CorpusReader::fill() {
  block_.resize(static_cast<std::size_t>(std::min<std::uint64_t>(kBlockBytes, bytes_ - loaded_)));
  file_->read(loaded_, std::as_writable_bytes(std::span(block_)));
  loaded_ += block_.size();
  at_ = 0;
}

/// The next line without its newline, blank or not; false at the end of the file.
bool CorpusReader::read_line(std::string& line) {
  line.clear();
  bool any = false;
  while (at_ < block_.size() || loaded_ < bytes_) {
    if (at_ == block_.size()) fill();
    any = true;
    const std::size_t newline = std::min(block_.find('\n', at_), block_.size());
    line.append(block_, at_, newline - at_);
    if (line.size() > kLineCap) {
      throw DataError("{}: line {}: longer than {} MiB", path_.string(), lines_ + 1, kLineCap >> 20);
    }
    bytes_read_ += std::min(newline + 1, block_.size()) - at_;
    at_ = std::min(newline + 1, block_.size());
    if (newline < block_.size()) break;
  }
  if (any) ++lines_;
  return any;
}

bool CorpusReader::next(CorpusLine& line) {
  std::int64_t blank = 0;
  while (read_line(line.text)) {
    if (is_blank(line.text)) {
      if (blank == 0) blank = lines_;
      continue;
    }
    if (blank != 0) throw DataError("{}: line {}: blank", path_.string(), blank);
    line.number = lines_;
    ++given_;
    return true;
  }
  if (given_ == 0) throw DataError("{}: no conversation in it", path_.string());
  return false;
}

Conversation parse_conversation(const CorpusLine& line, const std::filesystem::path& path) {
  const std::string place = fmt::format("{}: line {}", path.string(), line.number);
  const nlohmann::json document = parse_json(line.text, place);
  const JsonField root(document, place);
  const JsonField conversations = root["conversations"];
  Conversation conversation;
  for (std::size_t i = 0; i < conversations.array().size(); ++i) {
    conversation.turns.push_back(read_turn(conversations.at(i)));
  }
  check_order(conversation.turns, conversations);
  conversation.domain = root["domain"].string_or("");
  return conversation;
}

}  // namespace tadapt
