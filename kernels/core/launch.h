// How CPU ops spread independent pieces over threads.
#pragma once

#include <cstdint>
#include <exception>

#include "kernels/core/context.h"

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace tadapt {

/// Calls body(index, thread) for every index in [0, count), spread over the context's threads. Each index must write
/// memory no other index writes: then results cannot depend on the number of threads. The first exception thrown by a
/// body is rethrown here after all threads have ended.
template <class Body>
void parallel_for(const Context& context, std::int64_t count, Body&& body) {
  if (count <= 0) return;
  if (context.threads() == 1 || count == 1) {
    for (std::int64_t i = 0; i < count; ++i) body(i, 0);
    return;
  }
  std::exception_ptr failure = nullptr;
#pragma omp parallel for schedule(dynamic) num_threads(context.threads())
  for (std::int64_t i = 0; i < count; ++i) {
    try {
#if defined(_OPENMP)
      body(i, omp_get_thread_num());
#else
      body(i, 0);
#endif
    } catch (...) {
#pragma omp critical(tadapt_parallel_for_failure)
      if (!failure) failure = std::current_exception();
    }
  }
  if (failure) std::rethrow_exception(failure);
}

/// As parallel_for over blocks [begin, end) of `grain` consecutive indices (the last may be shorter).
template <class Body>
void parallel_blocks(const Context& context, std::int64_t count, std::int64_t grain, Body&& body) {
  const std::int64_t blocks = (count + grain - 1) / grain;
  parallel_for(context, blocks, [&](std::int64_t block, int thread) {
    const std::int64_t begin = block * grain;
    body(begin, begin + grain < count ? begin + grain : count, thread);
  });
}

/// Elements that are worth a thread's while in ops that go over memory once.
inline constexpr std::int64_t kElementsPerBlock = 32768;

/// Rows of `columns` elements that make up about kElementsPerBlock.
inline std::int64_t rows_per_block(std::int64_t columns) {
  return columns >= kElementsPerBlock ? 1 : kElementsPerBlock / (columns < 1 ? 1 : columns);
}

}  // namespace tadapt
