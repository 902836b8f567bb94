// Leftmost-longest search by narrowing a range of the sorted tokens byte by byte.
#include "data/added_tokens.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "data/unicode.h"

namespace tadapt {

AddedTokenFinder::AddedTokenFinder(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  const auto key = [](const AddedToken& token) { return std::tie(token.content, token.id); };
  std::sort(tokens_.begin(), tokens_.end(), [&](const auto& a, const auto& b) { return key(a) < key(b); });
  const auto same = [](const AddedToken& a, const AddedToken& b) { return a.content == b.content; };
  tokens_.erase(std::unique(tokens_.begin(), tokens_.end(), same), tokens_.end());
  for (const AddedToken& token : tokens_) starts_here_[static_cast<unsigned char>(token.content[0])] = true;
}

const AddedToken* AddedTokenFinder::longest_at(std::string_view text, std::size_t at) const {
  const AddedToken* longest = nullptr;
  auto first = tokens_.begin(), last = tokens_.end();
  for (std::size_t depth = 0; at + depth < text.size() && first != last; ++depth) {
    const auto byte = static_cast<unsigned char>(text[at + depth]);
    // All of [first, last) begin with the bytes read so far and are longer than that.
    first = std::partition_point(
        first, last, [&](const AddedToken& token) { return static_cast<unsigned char>(token.content[depth]) < byte; });
    last = std::partition_point(
        first, last, [&](const AddedToken& token) { return static_cast<unsigned char>(token.content[depth]) == byte; });
    if (first != last && first->content.size() == depth + 1) longest = &*first++;
  }
  return longest;
}

void AddedTokenFinder::split(std::string_view text, std::vector<TextPiece>& pieces) const {
  std::size_t done = 0;
  for (std::size_t at = 0; at < text.size();) {
    const AddedToken* token = starts_here_[static_cast<unsigned char>(text[at])] ? longest_at(text, at) : nullptr;
    if (token == nullptr) {
      ++at;
      continue;
    }
    // As in `tokenizers`, matches do not know what stripping swallowed: `done` may lie beyond `at`, or go back.
    const std::size_t after = at + token->content.size();
    const std::size_t blanks = token->strip_left && done < at ? trailing_white_space(text.substr(done, at - done)) : 0;
    const std::size_t end = token->strip_right ? after + leading_white_space(text.substr(after)) : after;
    if (done < at - blanks) pieces.push_back({-1, done, at - blanks});
    pieces.push_back({token->id, at - blanks, end});
    done = end;
    at = after;
  }
  if (done < text.size()) pieces.push_back({-1, done, text.size()});
}

}  // namespace tadapt
