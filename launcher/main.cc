// tadapt-dist: makes what every command needs, runs one, and turns a failure into one line and an exit code.
#include <fmt/format.h>

#include <cstdio>

#include "launcher/cli.h"
#include "launcher/openmp_waits.h"
#include "runtime/comm/peer_failure.h"

namespace {

int run(int count, char** words) {
  tadapt::StopSignals signals;  // before MPI, whose start takes long enough for a signal to come
  tadapt::MpiSession session;
  try {
    tadapt::RealFileSystem files;
    const int code = tadapt::run_cli({words + 1, words + count}, tadapt::this_process(files, session, signals));
    signals.ignore();
    return code;
  } catch (const std::exception& error) {
    return session.fail(error);
  }
}

}  // namespace

int main(int count, char** words) {
  tadapt::shorten_openmp_waits(words);
  try {
    return run(count, words);
  } catch (const tadapt::PeerFailure& failure) {  // MPI did not start, which another process says
    return static_cast<int>(failure.code());
  } catch (const tadapt::Error& error) {  // MPI did not start
    fmt::print(stderr, "tadapt: {}\n", error.what());
    return static_cast<int>(error.code());
  }
}
