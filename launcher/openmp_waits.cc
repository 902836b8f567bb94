#include "launcher/openmp_waits.h"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>

namespace tadapt {

void shorten_openmp_waits(char** words) {
  if (std::getenv("OMP_WAIT_POLICY") != nullptr || std::getenv("GOMP_SPINCOUNT") != nullptr) return;
  ::setenv("GOMP_SPINCOUNT", "1000", 1);
  std::error_code unknown;
  const auto executable = std::filesystem::read_symlink("/proc/self/exe", unknown);
  ::execv(executable.c_str(), words);  // only returns when it fails, and then the run is slow, not wrong
}

}  // namespace tadapt
