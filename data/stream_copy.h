// Copying to memory that is not read again soon.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace tadapt {

/// Copies like memcpy, but past the processor's caches where the device can: the destination is neither read first nor
/// pushes out what the caches hold. Before another thread is told of the copy, the copier calls stream_copies_done().
inline void stream_copy(std::byte* to, const std::byte* from, std::size_t bytes) {
#if defined(__SSE2__)
  constexpr std::size_t kLine = 64;
  const std::size_t head = (kLine - reinterpret_cast<std::uintptr_t>(to) % kLine) % kLine;
  if (bytes >= head + kLine) {
    std::memcpy(to, from, head);
    std::size_t done = head;
    for (; done + kLine <= bytes; done += kLine) {
      for (std::size_t i = 0; i < kLine; i += sizeof(__m128i)) {
        const __m128i part = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + done + i));
        _mm_stream_si128(reinterpret_cast<__m128i*>(to + done + i), part);
      }
    }
    to += done;
    from += done;
    bytes -= done;
  }
#endif
  std::memcpy(to, from, bytes);
}

/// Orders all stream_copy() of this thread before whatever it writes afterwards.
inline void stream_copies_done() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

}  // namespace tadapt
