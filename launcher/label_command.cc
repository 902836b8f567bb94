// `tadapt-dist label`: what a judge says of features: classes, descriptions, and how well the descriptions hold.
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <sstream>

#include "data/json.h"
#include "launcher/arguments.h"
#include "launcher/commands.h"
#include "launcher/output_file.h"
#include "launcher/run_session.h"
#include "runtime/analysis/label_run.h"

namespace tadapt {
namespace {

namespace fs = std::filesystem;
namespace po = boost::program_options;

constexpr std::int64_t kMost = std::int64_t{1} << 53;

CommandSyntax syntax() {
  CommandSyntax syntax{
      .usage = "label FEATURES --out DIR --model NAME --endpoint URL [FLAG…]",
      .about =
          "Asks a language model about features of a folder that `tadapt-dist features` has written: a class, a\n"
          "description, and in which of some held-out texts a feature so described is active. Answers are appended to\n"
          "DIR/labels.jsonl as they come; an interrupted job goes on when started again and asks only what is open.\n"
          "Without an endpoint, --export-prompts and --import-labels take the questions out and the answers in.",
      .operands = {"FEATURES"}};
  auto add = syntax.flags.add_options();
  const auto text = [](const char* name) { return po::value<std::string>()->value_name(name); };
  add("out", text("DIR"), "where labels.jsonl and labels.summary.json go");
  add("tasks", text("T,T…")->default_value("classify,describe,detect"), "what is asked; detect needs descriptions");
  add("features", text("N"), "so many features, drawn from all that were ever active; default: all of them");
  add("set", text("FILE"), "only features of this set");
  add("seed", text("N")->default_value("0"), "of the draws of features and texts");
  add("endpoint", text("URL"), "OpenAI-compatible, as https://api.openai.com/v1 or http://localhost:8000/v1");
  add("model", text("NAME"), "the judge; with --import-labels, who answered");
  add("key-variable", text("NAME")->default_value("OPENAI_API_KEY"), "variable of the environment that holds the key");
  add("request", text("JSON")->default_value(R"({"temperature": 0})"), "more members of every request");
  add("concurrency", text("N")->default_value("8"), "requests at a time");
  add("requests-per-minute", text("N")->default_value("0"), "at most; 0: any number");
  add("timeout-seconds", text("N")->default_value("120"), "for an answer");
  add("retries", text("N")->default_value("5"), "after a failure, or an answer that cannot be used");
  add("retry-seconds", text("N")->default_value("1"), "before the first retry; twice as long before each further one");
  add("again", "asks again what was answered without a usable label");
  add("export-prompts", text("FILE"), "only writes the open questions, in OpenAI's batch format");
  add("import-labels", text("FILE"), "takes answers from lines {\"id\", \"answer\"} or a batch's output");
  add("dry-run", "only says how many requests, tokens, hours and what cost that would be");
  add("price-in", text("P")->default_value("0"), "of a million prompt tokens, for --dry-run");
  add("price-out", text("P")->default_value("0"), "of a million answer tokens, for --dry-run");
  return syntax;
}

std::vector<LabelTask> tasks_of(const std::string& text) {
  std::vector<LabelTask> tasks;
  std::istringstream names(text);
  for (std::string name; std::getline(names, name, ',');) {
    const std::optional<LabelTask> task = label_task(name);
    if (!task) throw ConfigError("--tasks: expected some of classify,describe,detect, found {}", in_quotes(name));
    if (std::ranges::count(tasks, *task) == 0) tasks.push_back(*task);
  }
  return tasks;
}

nlohmann::ordered_json request_members(const std::string& text) {
  const nlohmann::ordered_json members = nlohmann::ordered_json::parse(text, nullptr, false);
  if (!members.is_object())
    throw ConfigError("--request: expected a JSON object such as {{\"temperature\": 0}}, found {}", in_quotes(text));
  for (const char* own : {"model", "messages", "stream", "n"})
    if (members.contains(own)) throw ConfigError("--request: \"{}\" is set by this program alone", own);
  return members;
}

/// From the environment, and nowhere written.
std::string key_of(const ParsedArguments& arguments) {
  const std::string name = text_of(arguments, "key-variable");
  const char* value = std::getenv(name.c_str());
  const std::string key = value == nullptr ? "" : value;
  if (key.empty() && !arguments["key-variable"].defaulted()) throw ConfigError("--key-variable: ${} is not set", name);
  if (!std::ranges::all_of(key, [](char letter) { return '!' <= letter && letter <= '~'; }))
    throw ConfigError("${}: expected a key of visible ASCII characters", name);
  return key;
}

LabelRequest request_of(const ParsedArguments& arguments, const Process& process) {
  const auto seed = static_cast<std::uint64_t>(number_of<std::int64_t>(arguments, "seed", 0, kMost));
  const bool samples = arguments.count("features") > 0;
  return {.features = path_of(arguments, "FEATURES", process),
          .out = path_of(arguments, "out", process),
          .choice = {.set = path_of(arguments, "set", process),
                     .sample = samples ? number_of<std::int64_t>(arguments, "features", 1, kMost) : 0,
                     .seed = seed},
          .tasks = tasks_of(text_of(arguments, "tasks")),
          .judge = {.endpoint = text_of(arguments, "endpoint"),
                    .model = text_of(arguments, "model"),
                    .key = key_of(arguments),
                    .key_variable = text_of(arguments, "key-variable"),
                    .members = request_members(text_of(arguments, "request")),
                    .concurrency = number_of<int>(arguments, "concurrency", 1, 1024),
                    .requests_per_minute = number_of<double>(arguments, "requests-per-minute", 0, 1e9),
                    .timeout_seconds = number_of<double>(arguments, "timeout-seconds", 0.001, 86400),
                    .retries = number_of<int>(arguments, "retries", 0, 1000),
                    .retry_seconds = number_of<double>(arguments, "retry-seconds", 0, 3600)},
          .again = arguments.count("again") > 0};
}

void require_one_way(const ParsedArguments& arguments) {
  if (arguments.count("out") == 0) throw ConfigError("label: --out is not given");
  std::string given;
  int ways = 0;
  for (const char* flag : {"endpoint", "export-prompts", "import-labels"}) {
    if (arguments.count(flag) == 0) continue;
    given += fmt::format(" --{}", flag);
    ++ways;
  }
  if (arguments.count("dry-run") == 0 && ways != 1)
    throw ConfigError("label: expected one of --endpoint, --export-prompts, --import-labels and --dry-run, found{}",
                      ways == 0 ? " none" : given);
  if (arguments.count("model") == 0) throw ConfigError("label: --model is not given");
}

/// Whether all was asked; false when a stop was asked for.
bool label(const ParsedArguments& arguments, const LabelRequest& request, const Process& process) {
  const LabelEnvironment environment{.files = process.files,
                                     .who = fmt::format("{}, pid {}", process.session.who(), ::getpid()),
                                     .print = process.print,
                                     .stop_requested = [&] { return process.signals.requested(); }};
  const fs::path to = path_of(arguments, "export-prompts", process),
                 from = path_of(arguments, "import-labels", process);
  const bool only_reads = arguments.count("dry-run") > 0 || !to.empty();
  if (!to.empty()) require_writable(process.files, to);
  LabelJob job(request, environment, only_reads ? LabelAccess::kRead : LabelAccess::kWrite);
  if (arguments.count("dry-run") > 0) {
    const LabelPrices prices{.per_million_in = number_of<double>(arguments, "price-in", 0, 1e9),
                             .per_million_out = number_of<double>(arguments, "price-out", 0, 1e9),
                             .requests_per_minute = request.judge.requests_per_minute};
    process.print(forecast_text(job.summary(Undescribed::kExpected), prices));
    return true;
  }
  if (!to.empty()) {
    job.export_questions(to);
    return true;
  }
  if (!from.empty())
    job.import_answers(from);
  else if (!job.ask())
    return false;
  job.summarise();
  return true;
}

}  // namespace

int label_command(const Words& words, const Process& process) {
  const auto arguments = parse_arguments(syntax(), words, process);
  if (!arguments) return static_cast<int>(ExitCode::kDone);
  // Ranks without work would wait at the job's end, which is bounded, while one asks for hours.
  if (process.session.size() > 1)
    throw ConfigError("label: expected one rank, found {}; start it without mpirun or srun", process.session.size());
  require_one_way(*arguments);
  const LabelRequest request = request_of(*arguments, process);
  const bool done = label(*arguments, request, process);
  const std::string facts = fmt::format("labels={}", request.out.string());
  return done ? say_exit(process, ExitCode::kDone, "finished", facts)
              : say_exit(process, ExitCode::kRequeue, "signal", facts);
}

}  // namespace tadapt
