#include "runtime/eval/grader.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <utility>

namespace tadapt {
namespace {

constexpr std::string_view kThink = "<think>", kEndThink = "</think>", kBoxed = "\\boxed";

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

/// What the brace at `open` and its partner hold; nothing when it has none.
std::optional<std::string_view> in_braces(std::string_view text, std::size_t open) {
  int depth = 0;
  for (std::size_t i = open; i < text.size(); ++i) {
    if (text[i] == '{') ++depth;
    if (text[i] == '}' && --depth == 0) return text.substr(open + 1, i - open - 1);
  }
  return std::nullopt;
}

std::optional<std::string> last_boxed(std::string_view text) {
  for (std::size_t at = text.rfind(kBoxed); at != text.npos; at = at == 0 ? text.npos : text.rfind(kBoxed, at - 1)) {
    std::size_t open = at + kBoxed.size();
    while (open < text.size() && is_space(text[open])) ++open;
    if (open == text.size() || text[open] != '{') continue;
    if (const auto inside = in_braces(text, open)) return std::string(*inside);
  }
  return std::nullopt;
}

std::optional<std::string> after_answer(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c;
  std::size_t begin = 0;
  for (const std::string_view lead : {"answer is", "answer:"}) {
    const std::size_t at = lower.rfind(lead);
    if (at != lower.npos) begin = std::max(begin, at + lead.size());
  }
  if (begin == 0) return std::nullopt;
  if (begin < text.size() && text[begin] == ':') ++begin;
  std::size_t end = begin;
  while (end < text.size() && text[end] != '\n') {
    const bool ends_sentence = text[end] == '.' && (end + 1 == text.size() || is_space(text[end + 1]));
    if (ends_sentence) break;
    ++end;
  }
  return std::string(text.substr(begin, end - begin));
}

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  for (std::size_t at = text.find(from); at != text.npos; at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
}

/// `\name{inside}` becomes `inside`.
void unwrap(std::string& text, std::string_view name) {
  for (std::size_t at = text.find(name); at != text.npos; at = text.find(name, at)) {
    const std::optional<std::string_view> inside = in_braces(text, at + name.size() - 1);
    if (!inside) return;
    text.replace(at, name.size() + inside->size() + 1, std::string(*inside));
  }
}

std::string stripped(std::string_view answer) {
  std::string text(answer);
  unwrap(text, "\\text{");
  unwrap(text, "\\mathrm{");
  constexpr std::array<std::pair<std::string_view, std::string_view>, 16> kSpellings{{{"\\dfrac", "\\frac"},
                                                                                      {"\\tfrac", "\\frac"},
                                                                                      {"\\left", ""},
                                                                                      {"\\right", ""},
                                                                                      {"\\(", ""},
                                                                                      {"\\)", ""},
                                                                                      {"\\!", ""},
                                                                                      {"\\,", ""},
                                                                                      {"\\;", ""},
                                                                                      {"\\ ", ""},
                                                                                      {"^\\circ", ""},
                                                                                      {"^{\\circ}", ""},
                                                                                      {"°", ""},
                                                                                      {"$", ""},
                                                                                      {"**", ""},
                                                                                      {"−", "-"}}};
  for (const auto& [from, to] : kSpellings) replace_all(text, from, to);
  std::erase_if(text, is_space);
  while (text.ends_with('.') || text.ends_with(',')) text.pop_back();
  return text;
}

/// Digits with an optional sign and decimals; commas between groups of three digits.
std::optional<double> decimal(std::string_view text) {
  std::string plain(text.starts_with('+') ? text.substr(1) : text);
  const std::size_t whole_begin = plain.starts_with('-') ? 1 : 0;
  const std::size_t point = std::min(plain.find('.'), plain.size());
  for (std::size_t at = point; at > whole_begin + 4 && plain[at - 4] == ','; at -= 4) plain.erase(at - 4, 1);
  const bool has_digit = std::ranges::any_of(plain, is_digit);
  const auto points = std::ranges::count(plain, '.');
  const bool is_plain = std::all_of(plain.begin() + static_cast<std::ptrdiff_t>(whole_begin), plain.end(),
                                    [](char c) { return is_digit(c) || c == '.'; });
  if (!has_digit || points > 1 || !is_plain) return std::nullopt;
  return std::strtod(plain.c_str(), nullptr);
}

std::optional<double> quotient(std::string_view numerator, std::string_view denominator) {
  const std::optional<double> above = decimal(numerator), below = decimal(denominator);
  if (!above || !below || *below == 0.0) return std::nullopt;
  return *above / *below;
}

std::optional<double> number(std::string_view text) {
  constexpr std::string_view kFraction = "\\frac{";
  const bool is_negative = text.starts_with('-');
  const std::string_view unsigned_text = text.substr(is_negative ? 1 : 0);
  if (unsigned_text.starts_with(kFraction)) {
    const auto above = in_braces(unsigned_text, kFraction.size() - 1);
    if (!above) return std::nullopt;
    const std::size_t second = kFraction.size() + above->size() + 1;
    const auto below =
        second < unsigned_text.size() && unsigned_text[second] == '{' ? in_braces(unsigned_text, second) : std::nullopt;
    if (!below || second + below->size() + 2 != unsigned_text.size()) return std::nullopt;
    const auto value = quotient(*above, *below);
    return value && is_negative ? std::optional(-*value) : value;
  }
  const std::size_t slash = text.find('/');
  return slash == text.npos ? decimal(text) : quotient(text.substr(0, slash), text.substr(slash + 1));
}

bool has_leading_zeros(std::string_view text) { return text.size() > 1 && text[0] == '0' && is_digit(text[1]); }

}  // namespace

std::optional<std::string> find_answer(std::string_view response) {
  const std::size_t end = response.rfind(kEndThink);
  if (end == response.npos && response.find(kThink) != response.npos) return last_boxed(response);
  const std::string_view conclusion = end == response.npos ? response : response.substr(end + kEndThink.size());
  const std::optional<std::string> boxed = last_boxed(conclusion);
  return boxed ? boxed : after_answer(conclusion);
}

bool same_answer(std::string_view found, std::string_view expected) {
  const std::string a = stripped(found), b = stripped(expected);
  if (a == b) return !a.empty();
  if (has_leading_zeros(b)) return false;
  const std::optional<double> x = number(a), y = number(b);
  return x && y && std::abs(*x - *y) <= 1e-9 * std::max(std::abs(*x), std::abs(*y));
}

bool is_correct(std::string_view response, std::string_view expected) {
  const std::optional<std::string> answer = find_answer(response);
  return answer && same_answer(*answer, expected);
}

}  // namespace tadapt
