#include "kernels/core/event.h"

#include "kernels/core/dispatch.h"

namespace tadapt {

void Event::record(Context& context) { TADAPT_DISPATCH_ON(device(), record_event, context, event_.get()); }
void Event::hold(Context& context) const { TADAPT_DISPATCH_ON(device(), hold_for_event, context, event_.get()); }
bool Event::reached() const { TADAPT_DISPATCH_ON(device(), event_reached, event_.get()); }
void Event::wait() const { TADAPT_DISPATCH_ON(device(), wait_for_event, event_.get()); }
void Event::Destroy::operator()(void* event) const { TADAPT_DISPATCH_ON(device, destroy_event, event); }
void* Event::make(Device device) { TADAPT_DISPATCH_ON(device, make_event, ); }

}  // namespace tadapt
