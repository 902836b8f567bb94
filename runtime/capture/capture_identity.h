// What a capture directory was begun as, so that another capture does not go on in it.
#pragma once

#include <filesystem>

#include "data/activation_cache.h"
#include "data/file.h"

namespace tadapt {

inline constexpr const char* kCapturePlanFile = "plan.json";

/// Which capture a directory is for. Format and provenance decide the bytes of a cache. A fact that the provenance does
/// not state is not compared.
struct CaptureIdentity {
  std::filesystem::path directory;
  CacheFormat format;
  Provenance provenance;
};

enum class CaptureState { kNew, kBegun, kComplete };

/// What lies in the directory, by its manifest or its plan.json. Complete is a cache whose manifest lists at least the
/// layers asked for, with all shard files there in their sizes; one that lacks some was begun. ConfigError naming the
/// directory and every differing key when it is another capture; DataError when the file is damaged.
CaptureState capture_state(FileSystem& files, const CaptureIdentity& identity);

/// Makes the directory and writes its plan.json, after which capture_state() is kBegun.
void begin_capture(FileSystem& files, const CaptureIdentity& identity);

}  // namespace tadapt
