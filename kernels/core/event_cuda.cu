#include "kernels/core/cuda.cuh"
#include "kernels/core/event.h"

namespace tadapt::cuda {
namespace {

cudaEvent_t handle(void* event) { return static_cast<cudaEvent_t>(event); }

}  // namespace

void* make_event() {
  cudaEvent_t event = nullptr;
  check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreate");
  return event;
}

void destroy_event(void* event) { cudaEventDestroy(handle(event)); }

void record_event(Context& context, void* event) {
  check(cudaEventRecord(handle(event), stream_of(context)), "cudaEventRecord");
}

void hold_for_event(Context& context, void* event) {
  check(cudaStreamWaitEvent(stream_of(context), handle(event), 0), "cudaStreamWaitEvent");
}

bool event_reached(void* event) {
  const cudaError_t status = cudaEventQuery(handle(event));
  if (status == cudaErrorNotReady) {
    cudaGetLastError();  // no error, and not to be taken for one of the next launch
    return false;
  }
  check(status, "cudaEventQuery");
  return true;
}

void wait_for_event(void* event) { check(cudaEventSynchronize(handle(event)), "cudaEventSynchronize"); }

}  // namespace tadapt::cuda
