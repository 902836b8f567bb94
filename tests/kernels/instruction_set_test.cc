// Which instruction set products run on.
#include "kernels/instruction_set.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/core/error.h"

namespace tadapt {
namespace {

TEST(InstructionSet, TheOneInUseIsAvailable) {
  EXPECT_LE(effective_instruction_set(), available_instruction_set());
  EXPECT_EQ(effective_instruction_set(), effective_instruction_set());
}

TEST(InstructionSet, CannotBeLoweredOnceInUse) {
  const InstructionSet used = effective_instruction_set();
  EXPECT_NO_THROW(limit_instruction_set(used));
  if (used == InstructionSet::kGeneric) GTEST_SKIP() << "nothing is lower than generic";
  try {
    limit_instruction_set(InstructionSet::kGeneric);
    ADD_FAILURE() << "not refused";
  } catch (const DeviceError& error) {
    EXPECT_THAT(error.what(), testing::AllOf(testing::HasSubstr(name(used)), testing::HasSubstr("generic")));
  }
}

TEST(InstructionSet, TheEnvironmentLimitsIt) {
  ASSERT_EQ(::setenv("ONEDNN_MAX_CPU_ISA", "AVX2", 1), 0);
  EXPECT_LE(available_instruction_set(), InstructionSet::kAvx2);
  ASSERT_EQ(::setenv("ONEDNN_MAX_CPU_ISA", "no such set", 1), 0);
  EXPECT_GE(available_instruction_set(), effective_instruction_set());
  ASSERT_EQ(::unsetenv("ONEDNN_MAX_CPU_ISA"), 0);
}

TEST(InstructionSet, HasANameOfItsOwn) {
  EXPECT_EQ(name(InstructionSet::kGeneric), "generic");
  EXPECT_EQ(name(InstructionSet::kAvx512CoreAmx), "avx512_core_amx");
}

}  // namespace
}  // namespace tadapt
