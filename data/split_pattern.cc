// Translates Oniguruma patterns to PCRE2, refusing what the two read differently, and runs them.
#include "data/split_pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>
#include <cctype>
#include <new>

#include "data/json.h"
#include "data/unicode.h"
#include "kernels/core/error.h"

namespace tadapt {
namespace {

/// Enough for a run of white space of 64 MB; a pattern that explodes ends with an error within seconds.
constexpr std::uint32_t kMatchLimit = 200'000'000;

/// Reads a pattern from left to right, writing PCRE2's spelling of each construct.
class Translator {
 public:
  Translator(std::string_view pattern, std::string_view where) : pattern_(pattern), where_(where) {}

  std::string run() {
    while (at_ < pattern_.size()) {
      if (pattern_[at_] == '\\') {
        escape();
      } else if (in_class_) {
        class_character();
      } else {
        plain_character();
      }
    }
    return out_;
  }

 private:
  [[noreturn]] void refuse(std::string_view construct) const {
    throw DataError("{}: pattern {}: {} is not supported", where_, in_quotes(pattern_), in_quotes(construct));
  }
  std::string_view rest() const { return pattern_.substr(at_); }
  void copy(std::size_t count) {
    out_ += pattern_.substr(at_, count);
    at_ += count;
  }
  void replace(std::size_t count, std::string_view text) {
    out_ += text;
    at_ += count;
  }

  void escape() {
    const char c = at_ + 1 < pattern_.size() ? pattern_[at_ + 1] : '\0';
    if (c == 's') {
      replace(2, in_class_ ? std::string(kWhiteSpaceRanges) : "[" + std::string(kWhiteSpaceRanges) + "]");
    } else if (c == 'S' && !in_class_) {
      replace(2, "[^" + std::string(kWhiteSpaceRanges) + "]");
    } else if (c == 'd' || c == 'D') {
      replace(2, c == 'd' ? "\\p{Nd}" : "\\P{Nd}");
    } else if (c == 'p' || c == 'P') {
      property();
    } else if (c == 'x' || c == 'u') {
      code_point(c);
    } else if (c == 'r' || c == 'n' || c == 't' || c == 'f' || std::ispunct(static_cast<unsigned char>(c)) != 0) {
      copy(2);
    } else {
      refuse(rest().substr(0, 2));
    }
  }

  /// \p{L}, \p{Lu}, \p{^L}: general categories only, for scripts mean other sets to the two engines.
  void property() {
    const std::size_t close = pattern_.find('}', at_);
    if (close == std::string_view::npos) refuse(rest());
    const std::string_view whole = pattern_.substr(at_, close + 1 - at_);
    std::string_view name = whole.substr(2);
    if (!name.starts_with('{')) refuse(whole);
    name.remove_prefix(name.starts_with("{^") ? 2 : 1);
    name.remove_suffix(1);
    const bool category =
        (name.size() == 1 || (name.size() == 2 && std::islower(static_cast<unsigned char>(name[1])))) &&
        std::string_view("LMNPSZC").find(name[0]) != std::string_view::npos;
    if (!category) refuse(whole);
    copy(whole.size());
  }

  /// \x{1F600} or \u4E00.
  void code_point(char kind) {
    std::string_view digits;
    std::size_t length = 6;
    if (kind == 'u') {
      digits = rest().substr(2, 4);
      if (digits.size() != 4) refuse(rest());
    } else {
      const std::size_t close = pattern_.find('}', at_);
      if (!rest().substr(2).starts_with('{') || close == std::string_view::npos) refuse(rest().substr(0, 4));
      digits = pattern_.substr(at_ + 3, close - at_ - 3);
      length = close + 1 - at_;
    }
    for (const char digit : digits) {
      if (std::isxdigit(static_cast<unsigned char>(digit)) == 0) refuse(rest().substr(0, length));
    }
    replace(length, "\\x{" + std::string(digits) + "}");
  }

  void class_character() {
    if (pattern_[at_] == '[' || rest().starts_with("&&")) refuse(rest().substr(0, 2));
    if (pattern_[at_] == ']') in_class_ = false;
    copy(1);
  }

  void plain_character() {
    const char c = pattern_[at_];
    if (c == '[') {
      const std::size_t opening = rest().starts_with("[^") ? 2 : 1;
      if (rest().substr(opening).starts_with(']')) refuse(rest().substr(0, opening + 1));
      in_class_ = true;
      copy(opening);
    } else if (c == '(') {
      group();
    } else if (c == '{') {
      repetition();
    } else if (c == '.') {
      replace(1, "[^\\n]");
    } else if (c == '^' || c == '$') {
      refuse(rest().substr(0, 1));
    } else {
      copy(1);
    }
  }

  void group() {
    if (!rest().starts_with("(?")) return copy(1);
    for (const std::string_view opening : {"(?:", "(?i:", "(?=", "(?!", "(?<=", "(?<!", "(?>"}) {
      if (rest().starts_with(opening)) return copy(opening.size());
    }
    refuse(rest().substr(0, 3));
  }

  /// {3}, {1,3}, {2,}; after it `+` and `?` mean different things to the two engines.
  void repetition() {
    const std::size_t close = pattern_.find('}', at_);
    const std::string_view whole = close == std::string_view::npos ? rest() : pattern_.substr(at_, close + 1 - at_);
    const bool counts = whole.size() > 2 && std::isdigit(static_cast<unsigned char>(whole[1])) != 0 &&
                        whole.find_first_not_of("0123456789,", 1) == whole.size() - 1;
    const std::string_view after = pattern_.substr(at_ + whole.size(), 1);
    if (!counts || after == "+" || after == "?") refuse(std::string(whole) + std::string(after));
    copy(whole.size());
  }

  std::string_view pattern_, where_;
  std::string out_;
  std::size_t at_ = 0;
  bool in_class_ = false;
};

std::string pcre2_message(int code) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

}  // namespace

std::string translate_pattern(std::string_view pattern, std::string_view where) {
  return Translator(pattern, where).run();
}

MatchSpace::MatchSpace()
    : data_(pcre2_match_data_create(1, nullptr)),
      context_(pcre2_match_context_create(nullptr)),
      stack_(pcre2_jit_stack_create(32 << 10, 16 << 20, nullptr)) {
  if (data_ == nullptr || context_ == nullptr) throw std::bad_alloc();
  pcre2_set_match_limit(context_, kMatchLimit);
  if (stack_ != nullptr) pcre2_jit_stack_assign(context_, nullptr, stack_);
}

MatchSpace::~MatchSpace() {
  pcre2_match_data_free(data_);
  pcre2_match_context_free(context_);
  pcre2_jit_stack_free(stack_);
}

void SplitPattern::FreeCode::operator()(pcre2_real_code_8* code) const { pcre2_code_free(code); }

SplitPattern::SplitPattern(std::string_view pattern, std::string_view where) : where_(where) {
  const std::string translated = translate_pattern(pattern, where);
  int error = 0;
  std::size_t offset = 0;
  code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(), PCRE2_UTF | PCRE2_UCP,
                            &error, &offset, nullptr));
  if (code_ == nullptr) throw DataError("{}: pattern {}: {}", where, in_quotes(pattern), pcre2_message(error));
  std::uint32_t matches_empty = 0;
  pcre2_pattern_info(code_.get(), PCRE2_INFO_MATCHEMPTY, &matches_empty);
  if (matches_empty != 0) throw DataError("{}: pattern {} can match an empty text", where, in_quotes(pattern));
  pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE);  // without JIT the interpreter gives the same matches
}

std::optional<SplitPattern::Match> SplitPattern::find(std::string_view text, std::size_t from,
                                                      MatchSpace& space) const {
  const int found = pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                                PCRE2_NO_UTF_CHECK, space.data_, space.context_);
  if (found == PCRE2_ERROR_NOMATCH) return std::nullopt;
  if (found < 0) throw DataError("{}: a text of {} bytes: {}", where_, text.size(), pcre2_message(found));
  const PCRE2_SIZE* range = pcre2_get_ovector_pointer(space.data_);
  return Match{range[0], range[1]};
}

}  // namespace tadapt
