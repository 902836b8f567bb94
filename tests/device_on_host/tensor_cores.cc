#include <tensor_cores.h>

#include <array>
#include <bit>
#include <map>
#include <stdexcept>
#include <vector>

namespace device_on_host {
namespace {

constexpr unsigned kAll = 0xffffffffu;
constexpr int kLanes = 32;

/// What a lane brings to a product.
struct Operands {
  std::uint32_t left[4], right[2];
};

/// The bf16 in a half of a pair: 0 the lower.
float half_of(std::uint32_t pair, int half) {
  return std::bit_cast<float>(half == 0 ? pair << 16 : pair & 0xffff0000u);
}

using Row = std::array<std::uint16_t, 8>;

/// The rows that all lanes point to.
std::array<Row, kLanes> rows_of_all(const void* row) {
  std::array<Row, kLanes> rows;
  if (reinterpret_cast<std::uintptr_t>(row) % sizeof(Row) != 0)
    throw std::logic_error("a row of a matrix that is not aligned to 16 bytes");
  const unsigned char* all = exchange(kAll, row, sizeof(Row));
  for (std::size_t lane = 0; lane < kLanes; ++lane) std::memcpy(&rows[lane], all + lane * kLaneBytes, sizeof(Row));
  return rows;
}

std::uint32_t pair_of(std::uint16_t lower, std::uint16_t upper) {
  return lower | static_cast<std::uint32_t>(upper) << 16;
}

struct Copy {
  void* to;
  const void* from;
  int bytes;
};
/// By thread of the running block.
std::map<unsigned, std::vector<Copy>>& copies() {
  static std::map<unsigned, std::vector<Copy>> all;
  return all;
}

}  // namespace

void multiply_add(const std::uint32_t (&left)[4], const std::uint32_t (&right)[2], float (&sum)[4]) {
  Operands mine;
  std::memcpy(mine.left, left, sizeof left);
  std::memcpy(mine.right, right, sizeof right);
  const unsigned char* all = exchange(kAll, &mine, sizeof mine);
  std::array<Operands, kLanes> lanes;
  for (std::size_t i = 0; i < kLanes; ++i) std::memcpy(&lanes[i], all + i * kLaneBytes, sizeof mine);
  const auto at = [&](int index) -> const Operands& { return lanes[static_cast<std::size_t>(index)]; };
  for (int i = 0; i < 4; ++i) {
    const int row = lane() / 4 + i / 2 * 8, column = lane() % 4 * 2 + i % 2;
    for (int k = 0; k < 16; ++k)
      sum[i] += half_of(at(row % 8 * 4 + k % 8 / 2).left[row / 8 + k / 8 * 2], k % 2) *
                half_of(at(column * 4 + k % 8 / 2).right[k / 8], k % 2);
  }
}

void load_matrices(const void* row, std::uint32_t* pairs) {
  const std::array<Row, kLanes> rows = rows_of_all(row);
  const auto self = static_cast<std::size_t>(lane());
  for (std::size_t i = 0; i < 4; ++i) {
    const Row& mine = rows[i * 8 + self / 4];
    pairs[i] = pair_of(mine[self % 4 * 2], mine[self % 4 * 2 + 1]);
  }
}

void load_transposed(const void* row, std::uint32_t* pairs) {
  const std::array<Row, kLanes> rows = rows_of_all(row);
  const auto self = static_cast<std::size_t>(lane());
  for (std::size_t i = 0; i < 4; ++i) {
    const std::size_t upper = i * 8 + self % 4 * 2;
    pairs[i] = pair_of(rows[upper][self / 4], rows[upper + 1][self / 4]);
  }
}

void begin_copy(void* to, const void* from, int bytes) {
  if (reinterpret_cast<std::uintptr_t>(to) % 16 != 0 || reinterpret_cast<std::uintptr_t>(from) % 16 != 0)
    throw std::logic_error("a copy to shared memory that is not aligned to 16 bytes");
  std::memset(to, 0xff, 16);
  copies()[threadIdx.x].push_back({to, from, bytes});
}

void finish_copies() {
  for (const Copy& copy : copies()[threadIdx.x]) {
    std::memset(copy.to, 0, 16);
    if (copy.bytes > 0) std::memcpy(copy.to, copy.from, static_cast<std::size_t>(copy.bytes));
  }
  copies()[threadIdx.x].clear();
}

}  // namespace device_on_host
