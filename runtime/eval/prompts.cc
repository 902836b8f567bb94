#include "runtime/eval/prompts.h"

#include <algorithm>
#include <limits>

#include "data/corpus.h"
#include "data/json.h"
#include "data/json_field.h"

namespace tadapt {
namespace {

std::vector<std::int32_t> ids_of(const JsonField& field) {
  constexpr std::int64_t kLargest = std::numeric_limits<std::int32_t>::max();
  std::vector<std::int32_t> ids;
  if (!field.present()) return ids;
  if (!field.is_array()) return {static_cast<std::int32_t>(field.integer(0, kLargest))};
  for (std::size_t i = 0; i < field.array().size(); ++i)
    ids.push_back(static_cast<std::int32_t>(field.at(i).integer(0, kLargest)));
  return ids;
}

std::vector<std::int32_t> end_ids(FileSystem& files, const std::filesystem::path& directory) {
  for (const char* name : {"generation_config.json", "config.json"}) {
    const std::filesystem::path path = directory / name;
    if (!files.exists(path)) continue;
    const nlohmann::json document = parse_json(read_text(files, path), path);
    std::vector<std::int32_t> ids = ids_of(JsonField(document, path.string())["eos_token_id"]);
    if (!ids.empty()) return ids;
  }
  return {};
}

}  // namespace

std::vector<Question> load_questions(FileSystem& files, const std::filesystem::path& path, Answers answers) {
  std::vector<Question> questions;
  CorpusReader lines(files, path);
  for (CorpusLine line; lines.next(line);) {
    const std::string place = fmt::format("{}: line {}", path.string(), line.number);
    const nlohmann::json document = parse_json(line.text, place);
    const JsonField root(document, place);
    const bool is_prompt = answers == Answers::kIgnored && root["prompt"].present();
    Question question{.question = root[is_prompt ? "prompt" : "question"].string(), .answer = {}, .place = place};
    if (question.question.empty()) throw DataError("{}: an empty question", place);
    if (answers == Answers::kNeeded) {
      question.answer = root["answer"].string();
      if (question.answer.empty()) throw DataError("{}: answer: an empty text", place);
    }
    questions.push_back(std::move(question));
  }
  return questions;
}

std::vector<Prompt> make_prompts(const std::vector<Question>& questions, ChatFormat format,
                                 const Tokenizer& tokenizer) {
  const ChatRenderer renderer(format, tokenizer);
  std::vector<Prompt> prompts;
  for (const Question& question : questions) {
    const std::string text = renderer.prompt({{Role::kUser, question.question}});
    prompts.push_back({.question = question.question,
                       .opening = format == ChatFormat::kDeepseek ? "<think>\n" : "",
                       .ids = tokenizer.encode(text),
                       .place = question.place});
  }
  return prompts;
}

void require_room(const std::vector<Prompt>& prompts, const DecoderConfig& config) {
  for (const Prompt& prompt : prompts) {
    if (static_cast<std::int64_t>(prompt.ids.size()) < config.max_positions) continue;
    throw DataError("{}: a prompt of {} tokens leaves no room for a response: the model has {} positions ({})",
                    prompt.place, prompt.ids.size(), config.max_positions, config.file.string());
  }
}

std::vector<std::int32_t> stop_tokens(FileSystem& files, const std::filesystem::path& directory,
                                      const Tokenizer& tokenizer) {
  std::vector<std::int32_t> ids = end_ids(files, directory);
  if (const auto end = tokenizer.eos_id()) ids.push_back(*end);
  if (ids.empty())
    throw ConfigError("{}: neither generation_config.json nor config.json nor the tokenizer names an EOS",
                      directory.string());
  std::ranges::sort(ids);
  ids.erase(std::ranges::unique(ids).begin(), ids.end());
  return ids;
}

}  // namespace tadapt
