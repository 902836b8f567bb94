// Captures the tiny pair with as many ranks as it was started with: `capture_program PAIR OUT [slow]`.
#include <chrono>
#include <cstdio>
#include <thread>

#include "runtime/comm/mpi_session.h"
#include "tests/capture/capture_fixture.h"

namespace tadapt {
namespace {

int run(MpiSession& session, const std::vector<std::string>& arguments) {
  try {
    RealFileSystem files;
    const auto world = make_communicator(session, 60);
    testing::TinyCapture job(arguments.at(1), {});
    job.progress = [&](const CaptureProgress& now) {
      std::printf("\nrows %lld \n", static_cast<long long>(now.rows_done));
      std::fflush(stdout);
      if (arguments.size() > 3) std::this_thread::sleep_for(std::chrono::milliseconds(30));
    };
    return job.run(files, *world, arguments.at(2)) == CaptureOutcome::kDone ? 0 : 75;
  } catch (const std::exception& error) {
    return session.fail(error);
  }
}

}  // namespace
}  // namespace tadapt

int main(int argc, char** argv) {
  tadapt::MpiSession session;
  return tadapt::run(session, {argv, argv + argc});
}
