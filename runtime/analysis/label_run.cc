#include "runtime/analysis/label_run.h"

#include <algorithm>
#include <map>
#include <optional>

#include "data/json.h"
#include "data/json_field.h"
#include "data/line_reader.h"
#include "runtime/train/progress.h"

namespace tadapt {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr char kLabels[] = "labels.jsonl";
constexpr char kSummary[] = "labels.summary.json";
constexpr char kLock[] = "label.lock";
constexpr double kProgressSeconds = 5.0;

/// An answer that was brought from elsewhere, and its line.
struct Imported {
  std::string place;
  JudgeAnswer answer;
};

Imported imported(const JsonField& line, const std::string& place) {
  if (!line["response"].present()) return {place, {.text = line["answer"].string(), .problem = ""}};
  if (!line["response"]["body"].is_object()) return {place, {.text = "", .problem = "the batch gave no answer"}};
  return {place, read_completion(nlohmann::json(line["response"]["body"].object()).dump())};
}

/// By id. A batch's lines have an "id" of their own beside that of the question.
std::map<std::string, Imported> read_imported(FileSystem& files, const fs::path& file) {
  std::map<std::string, Imported> answers;
  LineReader lines(files, file);
  std::int64_t number = 0;
  for (std::string text; lines.next(text);) {
    const std::string place = fmt::format("{}:{}", file.string(), ++number);
    if (text.empty()) continue;
    const nlohmann::json json = parse_json(text, place);
    const JsonField line(json, place);
    const std::string id = line[line["custom_id"].present() ? "custom_id" : "id"].string();
    const auto [there, is_new] = answers.emplace(id, imported(line, place));
    if (!is_new) throw DataError("{}: {} is answered in {} already", place, in_quotes(id), there->second.place);
  }
  return answers;
}

StoredTokens tokens_of(const FeatureStore& store, const LabelRequest& request) {
  StoredTokens tokens = store.tokens();
  if (std::ranges::count(request.tasks, LabelTask::kDetect) > 0 && tokens.contrast().empty())
    throw DataError(
        "{}: has no contrast windows, in which detect looks for texts without activations; collect the features anew, "
        "or choose --tasks classify,describe",
        request.features.string());
  return tokens;
}

std::unique_ptr<FileLock> locked(const LabelRequest& request, const LabelEnvironment& environment) {
  environment.files.make_directories(request.out);
  return environment.files.lock(request.out / kLock, environment.who);
}

}  // namespace

LabelJob::LabelJob(const LabelRequest& request, const LabelEnvironment& environment, LabelAccess access)
    : request_(request),
      environment_(environment),
      store_(environment.files, request.features),
      chosen_(choose_features(environment.files, store_, request.choice)),
      tokens_(tokens_of(store_, request)),
      lock_(access == LabelAccess::kWrite ? locked(request, environment) : nullptr),
      answers_(environment.files, request.out / kLabels, store_.description().identity, request.judge.model) {
  if (access == LabelAccess::kWrite) log_.emplace(environment.files, request.out / kLabels);
}

LabelSource LabelJob::source() const {
  return {store_, tokens_, chosen_, answers_, request_.choice.seed, request_.again};
}

std::vector<LabelTask> LabelJob::wanted(std::initializer_list<LabelTask> of) const {
  std::vector<LabelTask> tasks;
  for (const LabelTask task : of)
    if (std::ranges::count(request_.tasks, task) > 0) tasks.push_back(task);
  return tasks;
}

LabelSummary LabelJob::summary(Undescribed undescribed) const {
  LabelSummary summary{.adapters = store_.description().identity,
                       .model = request_.judge.model,
                       .chosen = chosen_.count,
                       .live = chosen_.live,
                       .seed = request_.choice.seed,
                       .skips = {},
                       .tasks = {},
                       .used = {},
                       .classes = {},
                       .detections = {}};
  const LabelSource from = source();
  LabelQuestions questions(from, request_.tasks, undescribed);
  while (const std::optional<LabelQuestion> question = questions.next()) summary.take(*question, from);
  summary.skips = questions.skips();
  for (std::size_t i = 0; i < summary.used.size(); ++i) summary.used[i] = answers_.used(static_cast<LabelTask>(i));
  return summary;
}

void LabelJob::record(const LabelQuestion& question, const JudgeAnswer& answer) {
  const JudgedLabel judged =
      answer.problem.empty() ? read_judged_label(question, answer.text) : JudgedLabel{nullptr, answer.problem};
  const LabelRecord record{.adapters = store_.description().identity,
                           .task = question.task,
                           .layer = question.layer,
                           .feature = question.feature,
                           .label = judged.label,
                           .problem = judged.problem,
                           .id = question.id,
                           .model = request_.judge.model,
                           .prompt_version = prompt_version(question.task),
                           .prompt = question.messages,
                           .answer = answer.text,
                           .prompt_tokens = answer.prompt_tokens,
                           .answer_tokens = answer.answer_tokens};
  log_->append(record);
  answers_.take(record);
}

bool LabelJob::ask() {
  std::int64_t total = 0, done = 0;
  for (const TaskTally& tally : summary(Undescribed::kExpected).tasks) {
    total += tally.questions;
    done += tally.questions - tally.open;
  }
  ProgressReport progress("label", "answers", total, done, kProgressSeconds, environment_.print);
  bool finished = true;
  for (const std::vector<LabelTask>& tasks :
       {wanted({LabelTask::kClassify, LabelTask::kDescribe}), wanted({LabelTask::kDetect})}) {
    const LabelSource from = source();
    LabelQuestions questions(from, tasks, Undescribed::kLeftOut);
    const JudgeWork work{
        .next = [&] { return questions.next_open(); },
        .problem_of = [](const LabelQuestion& question,
                         const std::string& answer) { return read_judged_label(question, answer).problem; },
        .take =
            [&](const LabelQuestion& question, const JudgeAnswer& answer) {
              record(question, answer);
              progress.update(++done);
            },
        .stop_requested = environment_.stop_requested,
        .print = environment_.print};
    finished = finished && (tasks.empty() || ask_judge(request_.judge, work));
  }
  log_->sync();
  return finished;
}

void LabelJob::export_questions(const fs::path& file) const {
  const LabelSource from = source();
  LabelQuestions questions(from, request_.tasks, Undescribed::kLeftOut);
  std::int64_t written = 0;
  // Larger than memory, perhaps.
  const fs::path unfinished = file.string() + ".tmp";
  const std::unique_ptr<File> lines = environment_.files.open(unfinished, OpenMode::kCreate);
  while (const std::optional<LabelQuestion> question = questions.next_open()) {
    const Json json = {{"custom_id", question->id},
                       {"method", "POST"},
                       {"url", "/v1/chat/completions"},
                       {"body", request_body(request_.judge, *question)}};
    const std::string line = json.dump() + "\n";
    lines->write(lines->size(), std::as_bytes(std::span(line)));
    ++written;
  }
  lines->sync();
  environment_.files.rename(unfinished, file);
  environment_.files.sync_directory(file.parent_path());
  const std::int64_t later = wanted({LabelTask::kDetect}).empty() ? 0 : questions.skips().without_description;
  environment_.print(fmt::format(
      "{}: {} questions{}", file.string(), written,
      later == 0 ? ""
                 : fmt::format("; left to do: import the answers, then export again what detect asks about up to {} "
                               "features that have no description yet",
                               later)));
}

void LabelJob::import_answers(const fs::path& file) {
  std::map<std::string, Imported> left = read_imported(environment_.files, file);
  std::int64_t taken = 0;
  for (const std::vector<LabelTask>& tasks :
       {wanted({LabelTask::kClassify, LabelTask::kDescribe}), wanted({LabelTask::kDetect})}) {
    const LabelSource from = source();
    LabelQuestions questions(from, tasks, Undescribed::kLeftOut);
    while (const std::optional<LabelQuestion> question = questions.next_open()) {
      const auto found = left.find(question->id);
      if (found == left.end()) continue;
      record(*question, found->second.answer);
      left.erase(found);
      ++taken;
    }
  }
  log_->sync();
  const std::size_t known = std::erase_if(left, [&](const auto& one) { return answers_.find(one.first) != nullptr; });
  environment_.print(fmt::format("{}: {} answers taken, {} were there already", file.string(), taken, known));
  if (!left.empty())
    throw DataError("{}: {} is the id of no question about these features; with it {} of {} answers are left out",
                    left.begin()->second.place, in_quotes(left.begin()->first), left.size() - 1,
                    left.size() + known + static_cast<std::size_t>(taken));
}

void LabelJob::summarise() const {
  const LabelSummary found = summary(Undescribed::kLeftOut);
  environment_.print(found.to_text());
  write_atomically(environment_.files, request_.out / kSummary, found.to_json().dump(1) + "\n");
}

}  // namespace tadapt
