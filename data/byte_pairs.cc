// A heap of candidate merges over a linked list of symbols, and a direct-mapped cache of words.
#include "data/byte_pairs.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <functional>
#include <utility>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace tadapt {
namespace {

constexpr std::uint64_t kUnused = ~std::uint64_t{0};

std::uint64_t pair_key(std::int32_t left, std::int32_t right) {
  return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 | static_cast<std::uint32_t>(right);
}

std::size_t pair_slot(std::uint64_t key) { return static_cast<std::size_t>(XXH3_64bits(&key, sizeof key)); }

}  // namespace

BytePairEncoder::BytePairEncoder(BytePairVocabulary vocabulary)
    : byte_ids_(vocabulary.byte_ids),
      words_(std::move(vocabulary.words)),
      table_(std::bit_ceil(2 * vocabulary.merges.size() + 1), Entry{kUnused, 0, 0}) {
  std::int32_t rank = 0;
  for (const auto& merge : vocabulary.merges) {
    const std::uint64_t key = pair_key(merge.left, merge.right);
    std::size_t slot = pair_slot(key) & (table_.size() - 1);
    while (table_[slot].pair != kUnused && table_[slot].pair != key) slot = (slot + 1) & (table_.size() - 1);
    table_[slot] = {key, rank++, merge.merged};
  }
}

const BytePairEncoder::Entry* BytePairEncoder::find(std::int32_t left, std::int32_t right) const {
  const std::uint64_t key = pair_key(left, right);
  std::size_t slot = pair_slot(key) & (table_.size() - 1);
  while (table_[slot].pair != key) {
    if (table_[slot].pair == kUnused) return nullptr;
    slot = (slot + 1) & (table_.size() - 1);
  }
  return &table_[slot];
}

bool BytePairEncoder::encode(std::string_view word, BytePairSpace& space, std::vector<std::int32_t>& ids) const {
  if (word.size() > BytePairSpace::kWordBytes) return merge(word, space, ids);
  auto& recent = space.recent_[XXH3_64bits(word.data(), word.size()) % BytePairSpace::kRecentWords];
  if (recent.bytes == word.size() && std::memcmp(recent.word.data(), word.data(), word.size()) == 0) {
    ids.insert(ids.end(), recent.ids.begin(), recent.ids.begin() + recent.count);
    return true;
  }
  const std::size_t before = ids.size();
  if (!merge(word, space, ids)) return false;
  const std::size_t count = ids.size() - before;
  if (count <= BytePairSpace::kWordIds) {
    std::memcpy(recent.word.data(), word.data(), word.size());
    std::copy(ids.end() - static_cast<std::ptrdiff_t>(count), ids.end(), recent.ids.begin());
    recent.bytes = static_cast<std::uint8_t>(word.size());
    recent.count = static_cast<std::int32_t>(count);
  }
  return true;
}

bool BytePairEncoder::merge(std::string_view word, BytePairSpace& space, std::vector<std::int32_t>& ids) const {
  if (!words_.empty()) {
    const auto whole = words_.find(std::string(word));
    if (whole != words_.end()) {
      ids.push_back(whole->second);
      return true;
    }
  }
  auto& symbols = space.symbols_;
  symbols.resize(word.size());
  for (std::size_t i = 0; i < word.size(); ++i) {
    const std::int32_t id = byte_ids_[static_cast<unsigned char>(word[i])];
    if (id < 0) return false;
    const auto position = static_cast<std::int32_t>(i);
    symbols[i] = {id, position - 1, i + 1 < word.size() ? position + 1 : -1};
  }
  merge_all(space);
  for (const auto& symbol : symbols) {
    if (symbol.id >= 0) ids.push_back(symbol.id);
  }
  return true;
}

namespace {
/// Of two candidates the one of lower rank goes first, then the one further left.
constexpr auto kLater = [](const auto& a, const auto& b) {
  return std::pair(a.rank, a.position) > std::pair(b.rank, b.position);
};
}  // namespace

void BytePairEncoder::push(BytePairSpace& space, std::int32_t position) const {
  if (position < 0) return;
  const auto& symbol = space.symbols_[static_cast<std::size_t>(position)];
  if (symbol.next < 0) return;
  const Entry* entry = find(symbol.id, space.symbols_[static_cast<std::size_t>(symbol.next)].id);
  if (entry == nullptr) return;
  space.heap_.push_back({entry->rank, position, entry->merged});
  std::push_heap(space.heap_.begin(), space.heap_.end(), kLater);
}

void BytePairEncoder::merge_all(BytePairSpace& space) const {
  auto& symbols = space.symbols_;
  auto& heap = space.heap_;
  heap.clear();
  for (std::size_t i = 0; i < symbols.size(); ++i) push(space, static_cast<std::int32_t>(i));
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), kLater);
    const auto candidate = heap.back();
    heap.pop_back();
    auto& symbol = symbols[static_cast<std::size_t>(candidate.position)];
    if (symbol.id < 0 || symbol.next < 0) continue;
    auto& right = symbols[static_cast<std::size_t>(symbol.next)];
    const Entry* entry = find(symbol.id, right.id);
    // A candidate is stale once either side has been merged with something else.
    if (entry == nullptr || entry->rank != candidate.rank) continue;
    symbol.id = candidate.merged;
    symbol.next = right.next;
    right.id = -1;
    if (symbol.next >= 0) symbols[static_cast<std::size_t>(symbol.next)].previous = candidate.position;
    push(space, symbol.previous);
    push(space, candidate.position);
  }
}

}  // namespace tadapt
