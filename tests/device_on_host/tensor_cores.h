// Stand-in for what a warp does by instructions that C++ cannot name: products of fragments, loads of matrices from
// shared memory, and copies that go on beside the thread. Fragments lie as PTX documents them for mma.m16n8k16 and
// ldmatrix; every lane of the warp must come.
#pragma once

#include <cuda_runtime.h>

namespace device_on_host {

/// sum [16, 8] += left [16, 16] · right [16, 8]; bf16 pairs and fp32, terms added one by one in fp32.
void multiply_add(const std::uint32_t (&left)[4], const std::uint32_t (&right)[2], float (&sum)[4]);

/// Matrix i of four [8, 8] of 16-bit numbers, its rows from lanes 8·i to 8·i + 7, into pairs[i].
void load_matrices(const void* row, std::uint32_t* pairs);
void load_transposed(const void* row, std::uint32_t* pairs);

/// Copies `bytes` of 16 and fills up with zeros, but only in finish_copies(); until then the 16 bytes are NaN, so that
/// whoever does not wait is seen.
void begin_copy(void* to, const void* from, int bytes);
/// Ends the copies that this thread has begun.
void finish_copies();

}  // namespace device_on_host
