// What a fuzz target is: bytes go in, and nothing but tadapt's own errors, in one line, may come out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "kernels/core/error.h"

namespace tadapt::fuzz {

/// Runs `read` on the bytes; its errors are answers, a message of several lines is a fault.
template <class Read>
int feed(const std::uint8_t* data, std::size_t size, const Read& read) {
  try {
    read(std::string_view(reinterpret_cast<const char*>(data), size));
  } catch (const Error& error) {
    if (std::string_view(error.what()).find('\n') != std::string_view::npos) std::abort();
    if (error.code() == ExitCode::kInternal) std::abort();
  }
  return 0;
}

}  // namespace tadapt::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
