// Grader: whether a response gives the expected answer to a question.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace tadapt {

/// The answer that a response gives, as written; nothing when it gives none.
///
/// Looked for in its conclusion, what follows the last "</think>", or all of it when it never thinks:
/// 1. inside the last \boxed{…} (braces balanced);
/// 2. else what follows the last "answer is" or "answer:", in any case, up to the end of its sentence or line.
/// A response that begins to think and does not end has no conclusion: only a \boxed{…} in it counts.
std::optional<std::string> find_answer(std::string_view response);

/// Whether two answers are the same
/// - exactly, once both are stripped of what only typesets them: white space, $, \( \), \left, \right, \text{…},
///   \mathrm{…}, thin spaces, "**", degree signs, a full stop or comma at the end; \dfrac and \tfrac are \frac; or
/// - as numbers: integers (also 1,234), decimals, a/b, \frac{a}{b}, to 1e-9 of the larger. An expected answer with
///   leading zeros, such as a string of digits, is no number.
bool same_answer(std::string_view found, std::string_view expected);

/// find_answer and same_answer.
bool is_correct(std::string_view response, std::string_view expected);

}  // namespace tadapt
