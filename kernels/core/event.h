// Event: a point in a device's work that other work, or the host, can wait for.
#pragma once

#include "kernels/core/dispatch.h"

namespace tadapt {

TADAPT_BACKENDS(void* make_event(); void destroy_event(void* event); void record_event(Context& context, void* event);
                void hold_for_event(Context& context, void* event); bool event_reached(void* event);
                void wait_for_event(void* event);)

/// Stands for nothing, and so is reached, until recorded. On the CPU, where work is done when it is asked for, always
/// reached. DeviceError where the device fails.
class Event {
 public:
  explicit Event(Device device) : event_(make(device), Destroy{device}) {}

  /// Stands for everything asked of the context so far.
  void record(Context& context) { TADAPT_DISPATCH_ON(device(), record_event, context, event_.get()); }
  /// What is asked of the context from now on runs after what this stands for.
  void hold(Context& context) const { TADAPT_DISPATCH_ON(device(), hold_for_event, context, event_.get()); }
  /// Whether it is done. Never blocks.
  bool reached() const { TADAPT_DISPATCH_ON(device(), event_reached, event_.get()); }
  /// Returns when it is done.
  void wait() const { TADAPT_DISPATCH_ON(device(), wait_for_event, event_.get()); }

 private:
  struct Destroy {
    Device device;
    void operator()(void* event) const { TADAPT_DISPATCH_ON(device, destroy_event, event); }
  };
  static void* make(Device device) { TADAPT_DISPATCH_ON(device, make_event, ); }
  Device device() const { return event_.get_deleter().device; }

  std::unique_ptr<void, Destroy> event_;
};

}  // namespace tadapt
