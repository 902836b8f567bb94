#include <cuda_runtime.h>

#include <algorithm>
#include <array>
#include <boost/context/fiber.hpp>
#include <boost/context/pooled_fixedsize_stack.hpp>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/support/sanitizers.h"
#if defined(TADAPT_ADDRESS_SANITIZER)
#include <sanitizer/common_interface_defs.h>
#endif

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
#if defined(TADAPT_ADDRESS_SANITIZER)
    __sanitizer_start_switch_fiber(&fake_stack_, to.bottom, to.bytes);
#endif
  }
  /// On the stack that was left; `from`, when given, becomes the one we come from.
  void back([[maybe_unused]] Stack* from = nullptr) {
#if defined(TADAPT_ADDRESS_SANITIZER)
    __sanitizer_finish_switch_fiber(fake_stack_, from == nullptr ? nullptr : &from->bottom,
                                    from == nullptr ? nullptr : &from->bytes);
#endif
  }
  /// The first thing on a new stack.
  static void arrive([[maybe_unused]] Stack* from) {
#if defined(TADAPT_ADDRESS_SANITIZER)
    __sanitizer_finish_switch_fiber(nullptr, &from->bottom, &from->bytes);
#endif
  }
  /// The last thing on a stack that is given up.
  static void leave([[maybe_unused]] const Stack& to) {
#if defined(TADAPT_ADDRESS_SANITIZER)
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

/// A fiber that runs threads of blocks, one after the other; a thread that waits keeps its worker.
struct Worker {
  boost::context::fiber fiber;
  Stack stack;
  int thread = 0;  // of the running block
};

struct Thread {
  Worker* worker = nullptr;  // while it has begun and not ended
  Wait wait = Wait::kNothing;
  unsigned mask = 0;  // of the warp operation it waits in
  bool done = false;

  bool runnable() const { return !done && wait == Wait::kNothing; }
};

/// What the lanes of a warp gave to a warp operation; of those that are through, for all to read.
struct Warp {
  unsigned char given[kLanes * kLaneBytes];
  unsigned char read[kLanes * kLaneBytes];
};

/// One turn of a warp's lanes, in shuffled order.
struct Turn {
  int begin = 0, count = 0, at = 0;
  std::array<std::uint8_t, kLanes> order{};
};

/// The block that runs now; its threads find themselves in it.
struct Block {
  const std::function<void()>& body;
  std::vector<Thread> threads = {};
  std::vector<Warp> warps = {};
  std::vector<unsigned char> shared = {};
  Turn turn = {};
  int current = 0;
  bool aborting = false;
  std::exception_ptr failure = {};
};

/// Shuffles quickly; the order is a function of the seed alone.
class Shuffler {
 public:
  explicit Shuffler(std::uint64_t seed) : state_(seed) {}
  template <class Order>
  void shuffle(Order& order, int count) {
    for (int i = 0; i < count; ++i) order[static_cast<std::size_t>(i)] = static_cast<Order::value_type>(i);
    for (int i = count - 1; i > 0; --i)
      std::swap(order[static_cast<std::size_t>(i)], order[next() % static_cast<std::uint64_t>(i + 1)]);
  }

 private:
  /// Steele, Lea & Flood, "Fast splittable pseudorandom number generators", 2014.
  std::uint64_t next() {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
  }
  std::uint64_t state_;
};

std::uint64_t seed() {
  const char* text = std::getenv("TADAPT_DEVICE_SEED");
  return text == nullptr ? 1 : std::strtoull(text, nullptr, 10);
}

struct Machine {
  Shuffler shuffler{seed()};
  Stack last_stack;
  StackAllocator stacks{.last = &last_stack};
  std::vector<std::unique_ptr<Worker>> workers;
  std::vector<Worker*> idle;
  boost::context::fiber scheduler;  // whoever resumed the running worker
  Stack scheduler_stack;
  Block* block = nullptr;

  std::vector<int> shuffled(int count) {
    std::vector<int> order(static_cast<std::size_t>(count));
    shuffler.shuffle(order, count);
    return order;
  }
};

/// Never destroyed: its idle fibers would have to be unwound after everything else is gone.
Machine& machine() {
  static Machine& only = *new Machine;
  return only;
}
Block& running() { return *machine().block; }

Thread& thread_at(Block& block, int index) { return block.threads[static_cast<std::size_t>(index)]; }

/// From a worker back to the scheduler, until that resumes the worker.
void to_scheduler() {
  boost::context::fiber back = std::move(machine().scheduler);
  StackSwitch change(machine().scheduler_stack);
  machine().scheduler = std::move(back).resume();
  change.back(&machine().scheduler_stack);
}

void to_worker(Worker& worker) {
  StackSwitch change(worker.stack);
  worker.fiber = std::move(worker.fiber).resume();
  change.back();
}

void hand_over(Wait wait) {
  Block& block = running();
  thread_at(block, block.current).wait = wait;
  to_scheduler();
  if (block.aborting) throw Aborted();
}

void set_thread(Block& block, int index) {
  block.current = index;
  threadIdx = dim3(static_cast<unsigned>(index) % blockDim.x, static_cast<unsigned>(index) / blockDim.x % blockDim.y,
                   static_cast<unsigned>(index) / (blockDim.x * blockDim.y));
}

/// The next lane of the turn that can run; -1 when the turn is over.
int next_lane(Block& block) {
  Turn& turn = block.turn;
  for (; turn.at < turn.count; ++turn.at) {
    const int index = turn.begin + turn.order[static_cast<std::size_t>(turn.at)];
    if (thread_at(block, index).runnable()) return index;
  }
  return -1;
}

/// Runs the worker's thread, and then those whose turn is next and that have not begun: a kernel without barriers costs
/// no change of stacks.
void run_threads(Worker& self) {
  Block& block = running();
  for (;;) {
    set_thread(block, self.thread);
    thread_at(block, self.thread).worker = &self;
    try {
      block.body();
    } catch (const Aborted&) {
    } catch (const std::exception&) {
      if (!block.failure) block.failure = std::current_exception();
    }
    thread_at(block, self.thread).worker = nullptr;
    thread_at(block, self.thread).done = true;
    const int next = block.aborting ? -1 : next_lane(block);
    if (next < 0 || thread_at(block, next).worker != nullptr) return;
    self.thread = next;
  }
}

Worker& make_worker() {
  Machine& all = machine();
  all.workers.push_back(std::make_unique<Worker>());
  Worker* made = all.workers.back().get();
  made->fiber = boost::context::fiber(std::allocator_arg, all.stacks, [made](boost::context::fiber&& caller) {
    StackSwitch::arrive(&machine().scheduler_stack);
    machine().scheduler = std::move(caller);
    for (;;) {
      run_threads(*made);
      machine().idle.push_back(made);
      to_scheduler();
    }
    return std::move(machine().scheduler);
  });
  made->stack = all.last_stack;
  return *made;
}

void resume(Block& block, int index) {
  if (Worker* worker = thread_at(block, index).worker; worker != nullptr) {
    set_thread(block, index);
    return to_worker(*worker);
  }
  Worker* worker = nullptr;
  if (machine().idle.empty()) {
    worker = &make_worker();
  } else {
    worker = machine().idle.back();
    machine().idle.pop_back();
  }
  worker->thread = index;
  to_worker(*worker);
}

/// Lets the lanes of a warp operation go on once all that are named have come; whether any could.
bool release_warp(Block& block, int begin, int end) {
  bool released = false;
  Warp& warp = block.warps[static_cast<std::size_t>(begin / kLanes)];
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
    for (int lane = 0; lane < end - begin; ++lane) {
      if ((mask >> lane & 1u) == 0) continue;
      thread_at(block, begin + lane).wait = Wait::kNothing;
      const std::size_t at = static_cast<std::size_t>(lane) * kLaneBytes;
      std::memcpy(warp.read + at, warp.given + at, kLaneBytes);
    }
    released = true;
  }
  return released;
}

/// Runs a warp until each of its lanes has ended or waits for the block; whether anything moved. What a warp operation
/// published is read in the turn after it, before the next one publishes.
bool run_warp(Block& block, int begin, int end) {
  bool moved = false;
  for (bool again = true; again;) {
    block.turn.begin = begin;
    block.turn.count = end - begin;
    block.turn.at = 0;
    machine().shuffler.shuffle(block.turn.order, block.turn.count);
    for (int lane = next_lane(block); lane >= 0; lane = next_lane(block)) {
      resume(block, lane);
      moved = true;
    }
    again = release_warp(block, begin, end);
  }
  return moved;
}

/// Ends what still waits in a block that cannot go on, and says why.
[[noreturn]] void abandon(Block& block, const char* reason) {
  block.aborting = true;
  for (int i = 0; i < static_cast<int>(block.threads.size()); ++i)
    if (thread_at(block, i).worker != nullptr) resume(block, i);
  if (block.failure) std::rethrow_exception(block.failure);
  throw std::logic_error(reason);
}

void run_block(Block& block) {
  const int count = static_cast<int>(block.threads.size());
  const int warps = (count + kLanes - 1) / kLanes;
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
  Block block{.body = body};
  block.warps.resize((count + kLanes - 1) / kLanes);
  for (const int index : machine().shuffled(grid)) {
    const auto at = static_cast<unsigned>(index);
    blockIdx = dim3(at % blocks.x, at / blocks.x % blocks.y, at / (blocks.x * blocks.y));
    block.threads.assign(count, Thread());
    // Shared memory begins undefined; a number that spoils results shows who relies on it.
    block.shared.assign(shared_bytes, 0xff);
    machine().block = &block;
    run_block(block);
    machine().block = nullptr;
  }
}

void* dynamic_shared() { return running().shared.data(); }

void block_barrier() { hand_over(Wait::kBlock); }

int lane() { return running().current % kLanes; }

const unsigned char* exchange(unsigned mask, const void* value, std::size_t bytes) {
  Block& block = running();
  const int self = block.current;
  if ((mask >> (self % kLanes) & 1u) == 0) throw std::logic_error("a lane outside its own mask in a warp operation");
  Warp& warp = block.warps[static_cast<std::size_t>(self / kLanes)];
  std::memcpy(warp.given + static_cast<std::size_t>(self % kLanes) * kLaneBytes, value, bytes);
  thread_at(block, self).mask = mask;
  hand_over(Wait::kWarp);
  return warp.read;
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
