// What every communicator must do, as checks that all its ranks call together; used with threads and with mpirun.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "kernels/core/random.h"
#include "runtime/comm/communicator.h"
#include "tests/support/tree_oracle.h"

namespace tadapt::testing {

/// Floats of all magnitudes and both signs, a function of (rank, element): any change of order changes bits.
inline std::vector<float> wild_floats(int rank, std::size_t count) {
  const RandomStream stream(11, RandomPurpose::kTest, 0, static_cast<std::uint64_t>(rank));
  std::vector<float> values(count);
  for (std::size_t i = 0; i < count; ++i) {
    const auto words = stream.words(static_cast<std::uint32_t>(i));
    const float mantissa = static_cast<float>(static_cast<std::int32_t>(words[0])) * 0x1p-31f;
    values[i] = std::ldexp(mantissa, static_cast<int>(words[1] % 24));
  }
  return values;
}

inline Tensor view(std::vector<float>& values) {
  return Tensor::of(std::span(values), {static_cast<std::int64_t>(values.size())});
}

inline std::size_t differing_bits(const std::vector<float>& left, const std::vector<float>& right) {
  std::size_t differing = 0;
  for (std::size_t i = 0; i < left.size(); ++i) {
    differing += std::bit_cast<std::uint32_t>(left[i]) != std::bit_cast<std::uint32_t>(right[i]) ? 1 : 0;
  }
  return differing;
}

inline void check_gathers(Communicator& comm) {
  for (const int count : {0, 1, 3, 1000}) {
    std::vector<double> mine, expected;
    for (int i = 0; i < count; ++i) mine.push_back(1000.0 * comm.rank() + i + 0.1);
    for (int rank = 0; rank < comm.size(); ++rank) {
      for (int i = 0; i < count; ++i) expected.push_back(1000.0 * rank + i + 0.1);
    }
    EXPECT_EQ(comm.all_gather(mine, "numbers"), expected);
  }
  const auto text_of = [](int rank) {
    return std::string(static_cast<std::size_t>(rank * rank * 997 % 5000), 'a') + "\0é";
  };
  std::vector<std::string> texts;
  for (int rank = 0; rank < comm.size(); ++rank) texts.push_back(rank == 1 ? "" : text_of(rank));
  EXPECT_EQ(comm.all_gather_text(comm.rank() == 1 ? "" : text_of(comm.rank()), "texts"), texts);
  EXPECT_EQ(comm.all_gather_text("", "no text"), std::vector<std::string>(static_cast<std::size_t>(comm.size())));
}

/// Every pair of ranks has a text of its own, some of them empty.
inline void check_all_to_all(Communicator& comm) {
  const auto text_of = [](int from, int to) {
    if ((from + to) % 3 == 1) return std::string();
    return std::to_string(from) + " to " + std::to_string(to) + std::string(static_cast<std::size_t>(from * 777), 'x');
  };
  std::vector<std::string> sent, expected;
  for (int rank = 0; rank < comm.size(); ++rank) {
    sent.push_back(text_of(comm.rank(), rank));
    expected.push_back(text_of(rank, comm.rank()));
  }
  EXPECT_EQ(comm.all_to_all_text(sent, "one each"), expected);
  sent.emplace_back();
  EXPECT_THROW(comm.all_to_all_text(sent, "one too many"), ShapeError);
}

inline void check_broadcasts(Communicator& comm) {
  for (int root = 0; root < comm.size(); ++root) {
    const std::string expected =
        "from " + std::to_string(root) + std::string(static_cast<std::size_t>(root) * 3000, 'x');
    EXPECT_EQ(comm.broadcast_text(comm.rank() == root ? expected : "other", root, "a text"), expected);
    EXPECT_EQ(comm.broadcast_text("", root, "nothing"), "");
  }
  EXPECT_THROW(comm.broadcast_text("", comm.size(), "no such root"), ShapeError);
}

/// Integers whose sums are exact in float32 in any order: catches misplaced or twice-counted pieces by value.
inline void check_exact_sum(Communicator& comm) {
  std::vector<float> values(50'000);
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>(i % 1000) + static_cast<float>(comm.rank());
  comm.start_sum(view(values), "exact")->wait();
  const std::size_t ranks = static_cast<std::size_t>(comm.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::size_t sum = ranks * (i % 1000) + ranks * (ranks - 1) / 2;
    ASSERT_EQ(values[i], static_cast<float>(sum));
  }
}

/// Bit equality with the balanced tree, for sizes round the borders of blocks, of the two algorithms and of pieces.
inline void check_tree_sum(Communicator& comm, const std::vector<std::size_t>& sizes) {
  for (const std::size_t count : sizes) {
    std::vector<std::vector<float>> leaves;
    for (int rank = 0; rank < comm.size(); ++rank) leaves.push_back(wild_floats(rank, count));
    std::vector<float> expected(count), values = leaves[static_cast<std::size_t>(comm.rank())];
    for (std::size_t i = 0; i < count; ++i) expected[i] = balanced_sum(leaves, i, 0, leaves.size());
    comm.start_sum(view(values), "tree")->wait();
    EXPECT_EQ(differing_bits(values, expected), 0u) << count << " elements on " << comm.size() << " ranks";
  }
}

/// A scatter leaves the bits of the tree in this rank's part, and a gather brings them to all; of any size.
inline void check_scatter_and_gather(Communicator& comm, const std::vector<std::size_t>& sizes) {
  for (const std::size_t count : sizes) {
    std::vector<std::vector<float>> leaves;
    for (int rank = 0; rank < comm.size(); ++rank) leaves.push_back(wild_floats(rank, count));
    std::vector<float> expected(count), values = leaves[static_cast<std::size_t>(comm.rank())];
    for (std::size_t i = 0; i < count; ++i) expected[i] = balanced_sum(leaves, i, 0, leaves.size());
    comm.start_scatter_sum(view(values), "scatter")->wait();
    const ElementRange part = comm.part(static_cast<std::int64_t>(count));
    const auto in_part = [&](std::size_t i) {
      return static_cast<std::int64_t>(i) >= part.begin && static_cast<std::int64_t>(i) < part.end;
    };
    for (std::size_t i = 0; i < count; ++i) {
      if (in_part(i)) continue;
      values[i] = std::numeric_limits<float>::quiet_NaN();  // nobody's to send on
    }
    std::vector<float> own = expected;
    for (std::size_t i = 0; i < count; ++i) own[i] = in_part(i) ? values[i] : expected[i];
    EXPECT_EQ(differing_bits(own, expected), 0u) << count << " elements scattered over " << comm.size();
    comm.start_gather(view(values), "gather")->wait();
    EXPECT_EQ(differing_bits(values, expected), 0u) << count << " elements gathered from " << comm.size();
  }
}

/// Several sums, scatters and gathers under way, other calls between them, waited for in another order: the bits of one
/// single sum.
inline void check_overlapping_sums(Communicator& comm) {
  constexpr std::size_t kCount = 300'000;
  std::vector<float> whole = wild_floats(comm.rank(), kCount), cut = whole;
  comm.start_sum(view(whole), "whole")->wait();
  std::vector<std::unique_ptr<PendingExchange>> sums;
  for (std::size_t begin = 0; begin < kCount; begin += 70'001) {
    const std::size_t count = std::min<std::size_t>(70'001, kCount - begin);
    sums.push_back(comm.start_sum(Tensor::of(std::span(cut).subspan(begin, count), {static_cast<std::int64_t>(count)}),
                                  "bucket " + std::to_string(begin)));
    const double mine = comm.rank();
    EXPECT_EQ(comm.all_gather(std::span(&mine, 1), "between").size(), static_cast<std::size_t>(comm.size()));
  }
  for (auto sum = sums.rbegin(); sum != sums.rend(); ++sum) (*sum)->wait();
  for (const auto& sum : sums) EXPECT_TRUE(sum->done());
  EXPECT_EQ(differing_bits(cut, whole), 0u);

  std::vector<float> scattered = wild_floats(comm.rank(), kCount), summed = scattered, gathered = whole;
  const ElementRange part = comm.part(kCount);
  for (std::size_t i = 0; i < kCount; ++i) {
    if (static_cast<std::int64_t>(i) < part.begin || static_cast<std::int64_t>(i) >= part.end) gathered[i] = 0.0f;
  }
  const auto scatter = comm.start_scatter_sum(view(scattered), "scatter");
  const auto sum = comm.start_sum(view(summed), "sum");
  const auto gather = comm.start_gather(view(gathered), "gather");
  gather->wait();
  sum->wait();
  scatter->wait();
  EXPECT_EQ(differing_bits(summed, whole), 0u);
  EXPECT_EQ(differing_bits(gathered, whole), 0u);
  for (auto i = static_cast<std::size_t>(part.begin); i < static_cast<std::size_t>(part.end); ++i)
    ASSERT_EQ(std::bit_cast<std::uint32_t>(scattered[i]), std::bit_cast<std::uint32_t>(whole[i]));
}

/// Messages of different sizes from every rank to every other arrive whole, in the order in which they were sent,
/// beside a sum that is under way.
inline void check_messages(Communicator& comm) {
  constexpr std::size_t kCounts[] = {1, 100'000, 3, 0};
  const bool sums = std::has_single_bit(static_cast<unsigned>(comm.size()));
  std::vector<float> summed = wild_floats(comm.rank(), 200'000);
  const auto sum = sums ? comm.start_sum(view(summed), "sum") : nullptr;
  const auto message = [](int from, int to, std::size_t count) { return wild_floats(100 * from + to, count); };
  for (int distance = 1; distance < comm.size(); ++distance) {
    const int to = (comm.rank() + distance) % comm.size(), from = (comm.rank() + comm.size() - distance) % comm.size();
    const auto send_all = [&] {
      for (const std::size_t count : kCounts) {
        std::vector<float> values = message(comm.rank(), to, count);
        comm.send(view(values), to, "message");
        std::ranges::fill(values, 0.0f);  // their memory may change now
      }
    };
    const auto receive_all = [&] {
      for (const std::size_t count : kCounts) {
        std::vector<float> values(count);
        comm.receive(view(values), from, "message");
        EXPECT_EQ(differing_bits(values, message(from, comm.rank(), count)), 0u) << count << " from rank " << from;
      }
    };
    // A send may wait for its receiver: one rank of each circle receives first.
    const bool first = comm.rank() < std::gcd(distance, comm.size());
    if (first) receive_all();
    send_all();
    if (!first) receive_all();
  }
  if (sum) sum->wait();
}

/// Even and odd ranks apart, in descending order of rank; both groups and their parent then work side by side.
inline void check_split(Communicator& comm) {
  const auto group = comm.split(comm.rank() % 2, -comm.rank(), "even and odd");
  std::vector<double> expected;
  for (int rank = comm.size() - 1; rank >= 0; --rank) {
    if (rank % 2 == comm.rank() % 2) expected.push_back(rank);
  }
  ASSERT_EQ(static_cast<std::size_t>(group->size()), expected.size());
  const double mine = comm.rank();
  EXPECT_EQ(group->all_gather(std::span(&mine, 1), "within"), expected);
  EXPECT_EQ(expected[static_cast<std::size_t>(group->rank())], mine);
  EXPECT_EQ(group->broadcast_text(std::to_string(comm.rank()), 0, "first"),
            std::to_string(static_cast<int>(expected[0])));
  const auto again = group->split(0, group->rank(), "the same once more");
  EXPECT_EQ(again->all_gather(std::span(&mine, 1), "deeper"), expected);
  comm.barrier("after the split");
}

}  // namespace tadapt::testing
