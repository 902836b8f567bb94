#include "kernels/core/event.h"

namespace tadapt::cpu {

void* make_event() { return nullptr; }
void destroy_event(void*) {}
void record_event(Context&, void*) {}
void hold_for_event(Context&, void*) {}
bool event_reached(void*) { return true; }
void wait_for_event(void*) {}

}  // namespace tadapt::cpu
