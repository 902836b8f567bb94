// The files of runtime/report/page/ and Chart.js, which are part of the program (cmake/embed.cmake).
#pragma once

#include <string_view>

namespace tadapt {

/// The content of one of them; an error of ours when there is none of that name.
std::string_view page_file(std::string_view name);

}  // namespace tadapt
