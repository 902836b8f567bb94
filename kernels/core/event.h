// Event: a point in a device's work that other work, or the host, can wait for.
#pragma once

#include "kernels/core/backends.h"

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
  void record(Context& context);
  /// What is asked of the context from now on runs after what this stands for.
  void hold(Context& context) const;
  /// Whether it is done. Never blocks.
  bool reached() const;
  /// Returns when it is done.
  void wait() const;

 private:
  struct Destroy {
    Device device;
    void operator()(void* event) const;
  };
  static void* make(Device device);
  Device device() const { return event_.get_deleter().device; }

  std::unique_ptr<void, Destroy> event_;
};

}  // namespace tadapt
