// The regular expression of a `Split` pre-tokenizer, written for Oniguruma and run by PCRE2.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

struct pcre2_real_code_8;
struct pcre2_real_match_data_8;
struct pcre2_real_match_context_8;
struct pcre2_real_jit_stack_8;

namespace tadapt {

/// What one thread needs to run patterns: use one per thread.
class MatchSpace {
 public:
  MatchSpace();
  ~MatchSpace();
  MatchSpace(const MatchSpace&) = delete;
  MatchSpace& operator=(const MatchSpace&) = delete;

 private:
  friend class SplitPattern;
  pcre2_real_match_data_8* data_ = nullptr;
  pcre2_real_match_context_8* context_ = nullptr;
  pcre2_real_jit_stack_8* stack_ = nullptr;
};

/// A compiled pattern; immutable, so threads may share it.
class SplitPattern {
 public:
  struct Match {
    std::size_t begin, end;
  };

  /// Compiles `pattern` as Oniguruma's Ruby syntax with Unicode classes. What the two engines read differently (`\w`,
  /// `\b`, `\h`, anchors, nested brackets, script names, …), what matches an empty text, and what does not compile is a
  /// DataError that begins with `where` and names the construct. Categories are those of Unicode 14: code points
  /// assigned later count as unassigned, which `tokenizers` may see otherwise; all others split alike.
  SplitPattern(std::string_view pattern, std::string_view where);

  /// The leftmost match of well-formed UTF-8 at or after `from`; DataError when the engine gives up (its own limits).
  std::optional<Match> find(std::string_view text, std::size_t from, MatchSpace& space) const;

 private:
  struct FreeCode {
    void operator()(pcre2_real_code_8* code) const;
  };
  std::string where_;
  std::unique_ptr<pcre2_real_code_8, FreeCode> code_;
};

/// The same pattern in PCRE2's syntax; errors as SplitPattern's constructor.
std::string translate_pattern(std::string_view pattern, std::string_view where);

}  // namespace tadapt
