#include "data/html_page.h"

#include <fmt/format.h>

#include "kernels/core/error.h"

namespace tadapt {

std::string filled_page(std::string_view page,
                        const std::vector<std::pair<std::string_view, std::string_view>>& texts_by_mark) {
  std::string filled;
  for (const auto& [mark, text] : texts_by_mark) {
    const std::size_t at = page.find(mark);
    if (at == page.npos) throw Error(ExitCode::kInternal, fmt::format("a page without the mark {}", mark));
    filled.append(page.substr(0, at)).append(text);
    page.remove_prefix(at + mark.size());
  }
  return filled.append(page);
}

}  // namespace tadapt
