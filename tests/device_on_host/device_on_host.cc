#include <cuda_runtime.h>
#include <unistd.h>

#include <algorithm>
#include <boost/context/fiber.hpp>
#include <boost/context/pooled_fixedsize_stack.hpp>
#include <cstdlib>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

/// Everything is done when it is asked for, but on a stream that a test has stopped.
struct device_on_host_stream {
  bool stuck = false;
};
struct device_on_host_event {
  bool stuck = false;
};

namespace device_on_host {
namespace {

constexpr int kLanes = 32;
constexpr std::size_t kStackBytes = 64 * 1024;
constexpr std::size_t kMostSharedBytes = 227 * 1024;
constexpr unsigned kMostThreads = 1024;

enum class Wait { kNothing, kWarp, kBlock };

/// A stack, as AddressSanitizer must be told of it whenever we change over.
struct Stack {
  const void* bottom = nullptr;
  std::size_t bytes = 0;
};

/// Tells AddressSanitizer that we leave for another stack, and on return that we are back; nothing in other builds.
class StackSwitch {
 public:
  explicit StackSwitch([[maybe_unused]] const Stack& to) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&fake_stack_, to.bottom, to.bytes);
#endif
  }
  /// On the stack that was left; `from`, when given, becomes the one we come from.
  void back([[maybe_unused]] Stack* from = nullptr) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake_stack_, from == nullptr ? nullptr : &from->bottom,
                                    from == nullptr ? nullptr : &from->bytes);
#endif
  }
  /// The first thing on a new stack.
  static void arrive([[maybe_unused]] Stack* from) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &from->bottom, &from->bytes);
#endif
  }
  /// The last thing on a stack that is given up.
  static void leave([[maybe_unused]] const Stack& to) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(nullptr, to.bottom, to.bytes);
#endif
  }

 private:
  [[maybe_unused]] void* fake_stack_ = nullptr;
};

/// Stacks from a pool, remembering where the last one lies.
struct StackAllocator {
  boost::context::pooled_fixedsize_stack pool{kStackBytes};
  Stack* last;
  boost::context::stack_context allocate() {
    const boost::context::stack_context stack = pool.allocate();
    *last = {static_cast<const char*>(stack.sp) - stack.size, stack.size};
    return stack;
  }
  void deallocate(boost::context::stack_context& stack) { pool.deallocate(stack); }
};

/// Thrown in the threads of a block that has failed, so that they end.
struct Aborted {};

struct Thread {
  boost::context::fiber fiber;
  Stack stack;
  Wait wait = Wait::kNothing;
  unsigned mask = 0;  // of the warp operation it waits in
  bool done = false;
};

struct Warp {
  unsigned char values[kLanes * kLaneBytes];
};

/// The block that runs now; its fibers find themselves in it.
struct Block {
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  std::vector<unsigned char> shared;
  boost::context::fiber scheduler;  // whoever resumed the running thread
  Stack scheduler_stack;
  int current = 0;
  bool aborting = false;
  std::exception_ptr failure;
};

struct Machine {
  std::mt19937 random;
  Stack last_stack;
  StackAllocator stacks{.last = &last_stack};
  Block* block = nullptr;

  Machine() {
    const char* seed = std::getenv("TADAPT_DEVICE_SEED");
    random.seed(seed == nullptr ? 1u : static_cast<unsigned>(std::strtoul(seed, nullptr, 10)));
  }
  std::vector<int> shuffled(int count) {
    std::vector<int> order(static_cast<std::size_t>(count));
    for (int i = 0; i < count; ++i) order[static_cast<std::size_t>(i)] = i;
    std::shuffle(order.begin(), order.end(), random);
    return order;
  }
};

Machine& machine() {
  static Machine only;
  return only;
}
Block& running() { return *machine().block; }

Thread& thread_at(Block& block, int index) { return block.threads[static_cast<std::size_t>(index)]; }

void hand_over(Wait wait) {
  Block& block = running();
  const int self = block.current;
  thread_at(block, self).wait = wait;
  boost::context::fiber back = std::move(block.scheduler);
  StackSwitch change(block.scheduler_stack);
  block.scheduler = std::move(back).resume();
  change.back(&block.scheduler_stack);
  if (block.aborting) throw Aborted();
}

void set_thread(int index) {
  threadIdx = dim3(static_cast<unsigned>(index) % blockDim.x, static_cast<unsigned>(index) / blockDim.x % blockDim.y,
                   static_cast<unsigned>(index) / (blockDim.x * blockDim.y));
}

void resume(Block& block, int index) {
  block.current = index;
  set_thread(index);
  Thread& thread = thread_at(block, index);
  StackSwitch change(thread.stack);
  thread.fiber = std::move(thread.fiber).resume();
  change.back();
}

/// Lets the lanes of a warp operation go on once all that are named have come; whether any could.
bool release_warp(Block& block, int begin, int end) {
  bool released = false;
  for (int i = begin; i < end; ++i) {
    const Thread& thread = thread_at(block, i);
    if (thread.done || thread.wait != Wait::kWarp) continue;
    const unsigned mask = thread.mask;
    bool complete = true;
    for (int lane = 0; lane < end - begin; ++lane) {
      const Thread& other = thread_at(block, begin + lane);
      if ((mask >> lane & 1u) != 0 && (other.done || other.wait != Wait::kWarp || other.mask != mask)) complete = false;
    }
    if (!complete) continue;
    for (int lane = 0; lane < end - begin; ++lane)
      if ((mask >> lane & 1u) != 0) thread_at(block, begin + lane).wait = Wait::kNothing;
    released = true;
  }
  return released;
}

/// Runs a warp until each of its lanes has ended or waits for the block; whether anything moved.
bool run_warp(Block& block, int begin, int end) {
  bool moved = false;
  for (bool again = true; again;) {
    for (const int lane : machine().shuffled(end - begin)) {
      const Thread& thread = thread_at(block, begin + lane);
      if (thread.done || thread.wait != Wait::kNothing) continue;
      resume(block, begin + lane);
      moved = true;
    }
    again = release_warp(block, begin, end);
  }
  return moved;
}

void start_threads(Block& block, const std::function<void()>& body) {
  for (int i = 0; i < static_cast<int>(block.threads.size()); ++i) {
    thread_at(block, i).fiber =
        boost::context::fiber(std::allocator_arg, machine().stacks, [&block, &body, i](boost::context::fiber&& caller) {
          StackSwitch::arrive(&block.scheduler_stack);
          block.scheduler = std::move(caller);
          try {
            if (!block.aborting) body();
          } catch (const Aborted&) {
          } catch (...) {
            if (!block.failure) block.failure = std::current_exception();
          }
          thread_at(block, i).done = true;
          StackSwitch::leave(block.scheduler_stack);
          return std::move(block.scheduler);
        });
    thread_at(block, i).stack = machine().last_stack;
  }
}

/// Ends what still waits in a block that cannot go on, and says why.
[[noreturn]] void abandon(Block& block, const char* reason) {
  block.aborting = true;
  for (int i = 0; i < static_cast<int>(block.threads.size()); ++i)
    if (!thread_at(block, i).done) resume(block, i);
  if (block.failure) std::rethrow_exception(block.failure);
  throw std::logic_error(reason);
}

void run_block(Block& block, const std::function<void()>& body) {
  const int count = static_cast<int>(block.threads.size());
  const int warps = (count + kLanes - 1) / kLanes;
  start_threads(block, body);
  const auto finished = [&] { return std::ranges::all_of(block.threads, &Thread::done); };
  while (!finished()) {
    bool moved = false;
    for (const int warp : machine().shuffled(warps))
      moved |= run_warp(block, warp * kLanes, std::min((warp + 1) * kLanes, count));
    const bool barrier = std::ranges::all_of(
        block.threads, [](const Thread& thread) { return thread.done || thread.wait == Wait::kBlock; });
    if (barrier && !finished()) {
      // A thread that has ended never comes: on a GPU that is undefined, here it is an error.
      if (std::ranges::any_of(block.threads, &Thread::done))
        abandon(block, "threads wait at a barrier that others of their block have left out");
      for (Thread& thread : block.threads) thread.wait = Wait::kNothing;
      moved = true;
    }
    if (!moved) abandon(block, "threads of a block wait for each other at different places");
  }
  if (block.failure) std::rethrow_exception(block.failure);
}

}  // namespace

void launch(dim3 blocks, dim3 threads, std::size_t shared_bytes, cudaStream_t, const std::function<void()>& body) {
  const unsigned count = threads.x * threads.y * threads.z;
  if (count == 0 || count > kMostThreads) throw std::logic_error("a block of " + std::to_string(count) + " threads");
  if (shared_bytes > kMostSharedBytes) throw std::logic_error("too much dynamic shared memory");
  gridDim = blocks;
  blockDim = threads;
  const int grid = static_cast<int>(blocks.x * blocks.y * blocks.z);
  for (const int index : machine().shuffled(grid)) {
    const auto at = static_cast<unsigned>(index);
    blockIdx = dim3(at % blocks.x, at / blocks.x % blocks.y, at / (blocks.x * blocks.y));
    Block block;
    block.threads.resize(count);
    block.warps.resize((count + kLanes - 1) / kLanes);
    // Shared memory begins undefined; a number that spoils results shows who relies on it.
    block.shared.assign(shared_bytes, 0xff);
    machine().block = &block;
    run_block(block, body);
    machine().block = nullptr;
  }
}

void get_stuck(cudaStream_t stream) { stream->stuck = true; }

void* dynamic_shared() { return running().shared.data(); }

void block_barrier() { hand_over(Wait::kBlock); }

int lane() { return running().current % kLanes; }

const unsigned char* exchange(unsigned mask, const void* value, std::size_t bytes) {
  Block& block = running();
  const int self = block.current;
  if ((mask >> (self % kLanes) & 1u) == 0) throw std::logic_error("a lane outside its own mask in a warp operation");
  unsigned char* values = block.warps[static_cast<std::size_t>(self / kLanes)].values;
  // First everybody may still read the operation before; then everybody has written.
  thread_at(block, self).mask = mask;
  hand_over(Wait::kWarp);
  std::memcpy(values + static_cast<std::size_t>(self % kLanes) * kLaneBytes, value, bytes);
  thread_at(block, self).mask = mask;
  hand_over(Wait::kWarp);
  return values;
}

}  // namespace device_on_host

unsigned __ballot_sync(unsigned mask, int predicate) {
  const unsigned char* values = device_on_host::exchange(mask, &predicate, sizeof predicate);
  unsigned bits = 0;
  for (unsigned lane = 0; lane < 32; ++lane) {
    if ((mask >> lane & 1u) == 0) continue;
    int one = 0;
    std::memcpy(&one, values + lane * device_on_host::kLaneBytes, sizeof one);
    bits |= one != 0 ? 1u << lane : 0u;
  }
  return bits;
}

const char* cudaGetErrorString(cudaError_t status) { return status == cudaSuccess ? "no error" : "an error"; }
const char* cudaGetErrorName(cudaError_t status) {
  return status == cudaErrorMemoryAllocation ? "cudaErrorMemoryAllocation" : "cudaSuccess";
}
cudaError_t cudaGetLastError() { return cudaSuccess; }
cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* index) {
  *index = 0;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  // Every process has a device of its own, unless all are to share one.
  const int domain = std::getenv("TADAPT_DEVICE_SHARED") == nullptr ? static_cast<int>(getpid()) : 0;
  *properties = {
      .name = "device on host", .major = 8, .minor = 0, .pciDomainID = domain, .pciBusID = 0, .pciDeviceID = 0};
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = 0;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 0;
  return cudaSuccess;
}
cudaError_t cudaMallocHost(void** memory, std::size_t bytes) { return cudaMalloc(memory, bytes); }
cudaError_t cudaFreeHost(void* memory) { return cudaFree(memory); }
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  stream->stuck = stream->stuck || event->stuck;
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new device_on_host_event;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  event->stuck = stream->stuck;
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) { return event->stuck ? cudaErrorNotReady : cudaSuccess; }
cudaError_t cudaEventSynchronize(cudaEvent_t event) { return cudaEventQuery(event); }
cudaError_t cudaSetDevice(int index) { return index == 0 ? cudaSuccess : cudaErrorInvalidValue; }
cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
  constexpr std::size_t kMost = std::size_t{1} << 36;
  constexpr std::size_t kAlignment = 256;
  if (bytes > kMost || posix_memalign(memory, kAlignment, bytes) != 0) return cudaErrorMemoryAllocation;
  return cudaSuccess;
}
cudaError_t cudaFree(void* memory) {
  std::free(memory);
  return cudaSuccess;
}
cudaError_t cudaMemset(void* memory, int value, std::size_t bytes) {
  std::memset(memory, value, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* memory, int value, std::size_t bytes, cudaStream_t) {
  return cudaMemset(memory, value, bytes);
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind, cudaStream_t) {
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  *free = *total = std::size_t{1} << 36;
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new device_on_host_stream;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) { return stream->stuck ? cudaErrorNotReady : cudaSuccess; }
cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
