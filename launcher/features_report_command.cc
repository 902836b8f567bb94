// `tadapt-dist features report`: what was collected of features, as a site that opens offline.
#include "launcher/arguments.h"
#include "launcher/commands.h"
#include "launcher/run_session.h"
#include "launcher/site_server.h"
#include "runtime/analysis/feature_site.h"

namespace tadapt {
namespace {

namespace fs = std::filesystem;
namespace po = boost::program_options;

CommandSyntax syntax() {
  CommandSyntax syntax{
      .usage = "features report --features DIR --out DIR [--graphs DIR] [--labels FILE] [--serve]",
      .about =
          "Writes a site about every feature of a folder that `tadapt-dist features` has written: a list to search "
          "and\n"
          "sort, and a page for each feature. Its index.html opens from the folder, without a server or network. An\n"
          "older site in --out is replaced. With --serve and no --features, a site that is there is only served."};
  auto add = syntax.flags.add_options();
  const auto text = [](const char* what) { return po::value<std::string>()->value_name(what); };
  add("features", text("DIR"), "what `tadapt-dist features` wrote");
  add("out", text("DIR"), "where the site goes");
  add("graphs", text("DIR"), "what `tadapt-dist attribute` wrote of the same adapters: neighbours of features");
  add("labels", text("FILE"), "JSONL with \"layer\", \"feature\" and \"class\" or \"description\"");
  add("serve", "then serves the site to browsers on this computer, until interrupted");
  add("port", text("N")->default_value("8000"), "of --serve; 0: any that is free");
  return syntax;
}

void write_site(const ParsedArguments& arguments, const Process& process) {
  RunOptions options;
  options.grid.device = "cpu";
  const RunSession session(options, process);
  const FeatureSiteRequest request{.features = path_of(arguments, "features", process),
                                   .out = path_of(arguments, "out", process),
                                   .graphs = path_of(arguments, "graphs", process),
                                   .labels = path_of(arguments, "labels", process)};
  const FeatureSiteSummary written = write_feature_site(request, session.environment());
  process.print(fmt::format("{}: {} features, {} labels, {} graphs", (request.out / "index.html").string(),
                            written.features, written.labels, written.graphs));
}

}  // namespace

int features_report_command(const Words& words, const Process& process) {
  const auto arguments = parse_arguments(syntax(), words, process);
  if (!arguments) return static_cast<int>(ExitCode::kDone);
  const bool serve = arguments->count("serve") > 0;
  // Ranks that do not serve would wait for the one that does at the job's end, which is bounded.
  if (serve && process.session.size() > 1)
    throw ConfigError("features report: --serve: expected one rank, found {}; start it without mpirun or srun",
                      process.session.size());
  const int port = number_of<int>(*arguments, "port", 0, 65535);
  if (arguments->count("out") == 0) throw ConfigError("features report: --out is not given");
  if (arguments->count("features") > 0)
    write_site(*arguments, process);
  else if (!serve || arguments->count("graphs") + arguments->count("labels") > 0)
    throw ConfigError("features report: --features is not given");
  if (!serve) return static_cast<int>(ExitCode::kDone);
  const fs::path site = path_of(*arguments, "out", process);
  require_feature_site(process.files, site);
  SiteServer server(site, port);
  process.print(fmt::format("{}: serving {} until interrupted", server.address(), site.string()));
  server.run([&] { return process.signals.requested(); });
  return static_cast<int>(ExitCode::kDone);
}

}  // namespace tadapt
