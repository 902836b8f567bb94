// Running GoogleTest on every rank of a job: the first rank reports as usual, the others what fails.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "runtime/comm/mpi_session.h"

namespace tadapt::testing {

/// What ranks other than the first print.
class FailuresOnly : public ::testing::EmptyTestEventListener {
 public:
  explicit FailuresOnly(std::string who) : who_(std::move(who)) {}
  void OnTestPartResult(const ::testing::TestPartResult& result) override {
    if (result.failed())
      fmt::print("{}: {}:{}: {}\n", who_, result.file_name(), result.line_number(), result.summary());
  }

 private:
  std::string who_;
};

inline int run_all_tests(const MpiSession& session) {
  if (session.rank() != 0) {
    auto& listeners = ::testing::UnitTest::GetInstance()->listeners();
    delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new FailuresOnly(session.who()));
  }
  return RUN_ALL_TESTS();
}

}  // namespace tadapt::testing
