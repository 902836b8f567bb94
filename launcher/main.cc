// tadapt-dist: makes what every command needs, runs one, and turns a failure into one line and an exit code.
#include <fmt/format.h>

#include <cstdio>

#include "launcher/cli.h"
#include "launcher/openmp_waits.h"

namespace {

int run(int count, char** words) {
  const tadapt::StopSignals signals;  // before MPI, whose start takes long enough for a signal to come
  tadapt::MpiSession session;
  try {
    tadapt::RealFileSystem files;
    return tadapt::run_cli({words + 1, words + count}, tadapt::this_process(files, session, signals));
  } catch (const std::exception& error) {
    return session.fail(error);
  }
}

}  // namespace

int main(int count, char** words) {
  tadapt::shorten_openmp_waits(words);
  try {
    return run(count, words);
  } catch (const tadapt::Error& error) {  // MPI did not start
    fmt::print(stderr, "tadapt: {}\n", error.what());
    return static_cast<int>(error.code());
  }
}
