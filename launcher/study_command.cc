// `tadapt-dist study`: an experiment of the paper from models to its table.
#include "launcher/asked_models.h"
#include "launcher/commands.h"
#include "launcher/run_config.h"
#include "launcher/run_session.h"
#include "runtime/analysis/hesitation_study.h"
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
          "PATH is a run, checkpoint or export; DIR is what `tadapt-dist features` wrote of it. Responses are kept: "
          "an\n"
          "interrupted study goes on when started again.",
      .operands = {"STUDY", "PATH"}};
  add_asking_flags(syntax.flags, Edits::kNone);
  auto add = syntax.flags.add_options();
  add("features", po::value<std::string>()->value_name("DIR"), "of these adapters");
  add("questions", po::value<std::string>()->value_name("FILE"), "JSONL with \"question\" and \"answer\"");
  add("out", po::value<std::string>()->value_name("DIR"),
      "where study.json, study.md, sets and responses go; else study-hesitation in the run's folder or the current "
      "one");
  return syntax;
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
      .features = process.current_directory / text_of(*arguments, "features")};
  const RunSession session(asked.options, process);
  const HesitationStudy study = run_hesitation_study(request, session.environment());
  on_rank_zero(session.environment().world, [&] {
    process.print(to_markdown(study));
    write_atomically(process.files, out / "study.md", to_markdown(study));
    write_atomically(process.files, out / "study.json", to_json(study));
    return std::string();
  });
  return static_cast<int>(ExitCode::kDone);
}

}  // namespace tadapt
