// Edit distance and the word that was probably meant.
#include "launcher/nearest.h"

#include <gtest/gtest.h>

namespace tadapt {
namespace {

TEST(EditDistance, CountsInsertionsRemovalsAndSubstitutions) {
  EXPECT_EQ(edit_distance("", ""), 0);
  EXPECT_EQ(edit_distance("abc", ""), 3);
  EXPECT_EQ(edit_distance("", "abc"), 3);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3);
  EXPECT_EQ(edit_distance("flaw", "lawn"), 2);
  EXPECT_EQ(edit_distance("train", "train"), 0);
}

TEST(Nearest, IsTheClosestAndTheFirstOfEquals) {
  EXPECT_EQ(nearest("trian", {"eval", "train", "export"}), "train");
  EXPECT_EQ(nearest("x", {"a", "b"}), "a");
  EXPECT_EQ(nearest("x", {}), "");
}

TEST(Nearest, TriesNamesWithoutTheirSection) {
  EXPECT_EQ(nearest("batch_tokns", {"train.steps", "train.batch_tokens"}), "train.batch_tokens");
}

TEST(Nearest, ABeginningIsOneEditAway) {
  EXPECT_EQ(nearest("--dry", {"--set", "--run", "--dry-run"}), "--dry-run");
  EXPECT_EQ(nearest("step", {"optim.beta1", "train.steps"}), "train.steps");
}

TEST(Nearest, StaysFastOnHostileWords) { EXPECT_EQ(nearest(std::string(1 << 20, 'a'), {"aaaa", "b"}), "aaaa"); }

}  // namespace
}  // namespace tadapt
