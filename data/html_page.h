// HTML pages that carry all they need in one file.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tadapt {

/// The page with each mark replaced by its text. Marks stand in this order in the page, and are looked for in the page
/// alone, never in a text. An error of ours when one is not there.
std::string filled_page(std::string_view page,
                        const std::vector<std::pair<std::string_view, std::string_view>>& texts_by_mark);

}  // namespace tadapt
