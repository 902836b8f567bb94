#include "runtime/train/agreement.h"

#include <exception>

namespace tadapt {

void agree(Communicator& world, const std::function<void()>& phase) {
  std::exception_ptr mine;
  std::string report;
  try {
    phase();
  } catch (const Error& error) {
    mine = std::current_exception();
    report = fmt::format("{} {}", static_cast<int>(error.code()), error.what());
  } catch (const std::exception& error) {
    mine = std::current_exception();
    report = fmt::format("{} {}", static_cast<int>(ExitCode::kInternal), error.what());
  }
  const std::vector<std::string> reports = world.all_gather_text(report, "agreement");
  for (std::size_t rank = 0; rank < reports.size(); ++rank) {
    if (reports[rank].empty()) continue;
    if (static_cast<int>(rank) == world.rank()) std::rethrow_exception(mine);
    const std::size_t space = reports[rank].find(' ');
    throw PeerFailure(static_cast<ExitCode>(std::stoi(reports[rank].substr(0, space))),
                      reports[rank].substr(space + 1));
  }
}

std::string on_rank_zero(Communicator& world, const std::function<std::string()>& phase) {
  std::string text;
  agree(world, [&] {
    if (world.rank() == 0) text = phase();
  });
  return world.broadcast_text(text, 0, "rank 0's result");
}

}  // namespace tadapt
