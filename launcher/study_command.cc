// `tadapt-dist study`: an experiment of the paper from models to its table.
#include <charconv>
#include <sstream>

#include "launcher/arguments.h"
#include "launcher/asked_models.h"
#include "launcher/commands.h"
#include "launcher/run_config.h"
#include "launcher/run_session.h"
#include "runtime/analysis/hesitation_report.h"
#include "runtime/report/report.h"
#include "runtime/train/agreement.h"

namespace tadapt {
namespace {

namespace fs = std::filesystem;
namespace po = boost::program_options;

CommandSyntax syntax() {
  CommandSyntax syntax{
      .usage = "study hesitation PATH --features DIR --questions FILE [--samples N] [--out DIR]",
      .about =
          "Which features promote hesitation, what the adapter model does without them (necessity), what they do\n"
          "alone on the hybrid (sufficiency) and taken from the target (transfer), each beside random controls.\n"
          "PATH is a run, checkpoint or export; DIR is what `tadapt-dist features` wrote of it. Responses are kept:\n"
          "an interrupted study goes on when started again.",
      .operands = {"STUDY", "PATH"}};
  add_asking_flags(syntax.flags, Edits::kNone);
  auto add = syntax.flags.add_options();
  const auto text = [](const char* name, const std::string& otherwise) {
    return po::value<std::string>()->value_name(name)->default_value(otherwise);
  };
  const HesitationRules rules;
  add("features", po::value<std::string>()->value_name("DIR"), "of these adapters");
  add("questions", po::value<std::string>()->value_name("FILE"), "JSONL with \"question\" and \"answer\"");
  add("output-rule", text("RULE", rules.output), "features that promote hesitation; see `tadapt-dist select --help`");
  add("template-rule", text("RULE", rules.template_rule), "features of the chat template");
  add("controls", text("N,N…", "0.5,1,2,4"), "sizes of the random controls, in sizes of both sets together");
  add("control-seed", text("N", "0"), "of their draws");
  add("out", po::value<std::string>()->value_name("DIR"),
      "where study.json, .csv, .md, .html, sets and responses go; else study-hesitation in the run's folder or the "
      "current one");
  return syntax;
}

std::vector<double> control_times(const std::string& text) {
  std::vector<double> times;
  std::istringstream words(text);
  for (std::string word; std::getline(words, word, ',');) {
    double number = 0.0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), number);
    if (error != std::errc() || end != word.data() + word.size() || !(number > 0.0 && number <= 1e6))
      throw ConfigError("--controls: expected numbers above 0 with commas between them, found '{}'", text);
    times.push_back(number);
  }
  return times;
}

/// Says what came out, and writes it in every form.
void publish(const HesitationStudy& study, const std::string& name, const fs::path& folder, const Process& process) {
  const std::string markdown = to_markdown(study);
  const nlohmann::ordered_json json = to_json(study);
  const nlohmann::ordered_json page = {{"title", "Hesitation"}, {"studies", {{{"name", name}, {"data", json}}}}};
  process.print(markdown);
  write_atomically(process.files, folder / "study.md", markdown);
  write_atomically(process.files, folder / "study.csv", to_csv(study));
  write_atomically(process.files, folder / "study.html", study_page(page));
  write_atomically(process.files, folder / "study.json", json.dump(2) + "\n");
}

}  // namespace

int study_command(const Words& words, const Process& process) {
  const auto arguments = parse_arguments(syntax(), words, process);
  if (!arguments) return static_cast<int>(ExitCode::kDone);
  if (text_of(*arguments, "STUDY") != "hesitation")
    throw ConfigError("study: expected hesitation, found '{}'", text_of(*arguments, "STUDY"));
  for (const char* flag : {"features", "questions"})
    if (arguments->count(flag) == 0) throw ConfigError("study: --{} is not given", flag);
  const AskedModels asked = asked_models(*arguments, process);
  require_set(asked.options, {"model.base", "model.target"});
  const fs::path folder = asked.run.empty() ? process.current_directory : asked.run;
  const fs::path out = arguments->count("out") > 0 ? process.current_directory / text_of(*arguments, "out")
                                                   : folder / "study-hesitation";
  const HesitationRequest request{
      .questions = {.options = asked.options,
                    .questions = process.current_directory / text_of(*arguments, "questions"),
                    .samples = samples_of(*arguments),
                    .generation = generation_options(*arguments),
                    .directory = out},
      .adapters = asked.adapters.path,
      .features = process.current_directory / text_of(*arguments, "features"),
      .rules = {.output = text_of(*arguments, "output-rule"),
                .template_rule = text_of(*arguments, "template-rule"),
                .control_times = control_times(text_of(*arguments, "controls")),
                .control_seed = number_of<std::uint64_t>(*arguments, "control-seed", 0, std::uint64_t{1} << 53)}};
  const RunSession session(asked.options, process);
  const HesitationStudy study = run_hesitation_study(request, session.environment());
  on_rank_zero(session.environment().world, [&] {
    publish(study, asked.adapters.path.lexically_normal().filename().string(), out, process);
    return std::string();
  });
  return static_cast<int>(ExitCode::kDone);
}

}  // namespace tadapt
