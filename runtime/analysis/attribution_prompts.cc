#include "runtime/analysis/attribution_prompts.h"

#include <map>

#include "runtime/eval/prompts.h"

namespace tadapt {
namespace {

namespace fs = std::filesystem;

std::string slug_of(std::string name) {
  for (char& letter : name) {
    const bool fits = (letter >= '0' && letter <= '9') || (letter >= 'a' && letter <= 'z') ||
                      (letter >= 'A' && letter <= 'Z') || letter == '_' || letter == '.';
    if (!fits) letter = '-';
  }
  return name;
}

AttributionPrompt read_plain(FileSystem& files, const fs::path& path, const Tokenizer& tokenizer) {
  constexpr std::uint64_t kMostBytes = 1u << 26;
  AttributionPrompt prompt{.slug = slug_of(path.stem().string()),
                           .place = path.string(),
                           .text = read_text(files, path, kMostBytes),
                           .ids = {}};
  if (prompt.text.ends_with('\n')) prompt.text.pop_back();
  if (prompt.text.empty()) throw DataError("{}: an empty prompt", prompt.place);
  const std::string& bos = tokenizer.bos();
  if (tokenizer.adds_bos() && !prompt.text.starts_with(bos)) prompt.text.insert(0, bos);
  prompt.ids = tokenizer.encode(prompt.text);
  if (prompt.ids.size() < 3)
    throw DataError("{}: a prompt of {} tokens: expected at least two, and the token that is shown to come next",
                    prompt.place, prompt.ids.size());
  prompt.ids.pop_back();
  prompt.text = tokenizer.decode(prompt.ids);
  return prompt;
}

void read_lines(FileSystem& files, const fs::path& path, ChatFormat format, const Tokenizer& tokenizer,
                std::vector<AttributionPrompt>& prompts) {
  const std::vector<Question> questions = load_questions(files, path, Answers::kIgnored);
  std::vector<Prompt> made = make_prompts(questions, format, tokenizer);
  for (std::size_t i = 0; i < made.size(); ++i) {
    if (made[i].ids.size() < 2)
      throw DataError("{}: a prompt of {} tokens: expected at least two", made[i].place, made[i].ids.size());
    prompts.push_back({.slug = slug_of(fmt::format("{}-{:04}", path.stem().string(), i + 1)),
                       .place = made[i].place,
                       .text = tokenizer.decode(made[i].ids),
                       .ids = std::move(made[i].ids)});
  }
}

std::vector<fs::path> files_of(FileSystem& files, const fs::path& path) {
  if (!files.exists(path)) throw MissingInputError("{}: there is no such file or folder", path.string());
  if (!fs::is_directory(path)) {
    if (path.extension() != ".txt" && path.extension() != ".jsonl")
      throw DataError("{}: expected prompts in a .txt or .jsonl file", path.string());
    return {path};
  }
  std::vector<fs::path> found;
  for (const std::string& name : files.list(path)) {
    const fs::path file = path / name;
    if (file.extension() == ".txt" || file.extension() == ".jsonl") found.push_back(file);
  }
  if (found.empty()) throw MissingInputError("{}: holds no prompts: no .txt and no .jsonl file", path.string());
  return found;
}

}  // namespace

std::vector<AttributionPrompt> read_attribution_prompts(FileSystem& files, const fs::path& path, ChatFormat format,
                                                        const Tokenizer& tokenizer) {
  std::vector<AttributionPrompt> prompts;
  for (const fs::path& file : files_of(files, path)) {
    if (file.extension() == ".txt")
      prompts.push_back(read_plain(files, file, tokenizer));
    else
      read_lines(files, file, format, tokenizer, prompts);
  }
  std::map<std::string, std::string> places;
  for (const AttributionPrompt& prompt : prompts) {
    const auto [there, is_new] = places.emplace(prompt.slug, prompt.place);
    if (!is_new) throw DataError("{} and {}: both graphs would be called {}", there->second, prompt.place, prompt.slug);
  }
  return prompts;
}

}  // namespace tadapt
