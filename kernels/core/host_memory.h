// How much memory the host has.
#pragma once

#include <cstdint>

namespace tadapt {

/// Bytes of physical memory of this host, whoever uses them.
std::uint64_t host_memory_bytes();

}  // namespace tadapt
