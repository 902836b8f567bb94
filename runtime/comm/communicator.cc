// SelfCommunicator: every collective of one rank is its own input.
#include "runtime/comm/communicator.h"

namespace tadapt {

void SelfCommunicator::barrier(std::string_view /*what*/) {}

std::vector<double> SelfCommunicator::all_gather(std::span<const double> values, std::string_view /*what*/) {
  return {values.begin(), values.end()};
}

std::vector<std::string> SelfCommunicator::all_gather_text(std::string_view text, std::string_view /*what*/) {
  return {std::string(text)};
}

std::vector<std::string> SelfCommunicator::all_to_all_text(std::vector<std::string> texts, std::string_view what) {
  require_shape(texts.size() == 1, "'{}': {} texts in a group of 1", what, texts.size());
  return texts;
}

std::string SelfCommunicator::broadcast_text(std::string_view text, int root, std::string_view what) {
  require_shape(root == 0, "'{}': root {} of a group of 1", what, root);
  return std::string(text);
}

void SelfCommunicator::send(const Tensor& /*values*/, int to, std::string_view what) {
  throw ShapeError("'{}': sent to rank {} of a group of 1", what, to);
}

void SelfCommunicator::receive(const Tensor& /*values*/, int from, std::string_view what) {
  throw ShapeError("'{}': wanted from rank {} of a group of 1", what, from);
}

std::unique_ptr<PendingExchange> SelfCommunicator::start(Collective /*collective*/, Tensor values,
                                                         std::string /*label*/) {
  require_shape(values.empty() || values.dtype() == DType::kFloat32, "a sum of {} values", name(values.dtype()));
  return std::make_unique<FinishedExchange>();
}

std::unique_ptr<Communicator> SelfCommunicator::split(int /*color*/, int /*key*/, std::string_view /*what*/) {
  return std::make_unique<SelfCommunicator>();
}

}  // namespace tadapt
