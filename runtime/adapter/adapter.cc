#include "runtime/adapter/adapter.h"

#include <fmt/ranges.h>

#include "runtime/adapter/transcoder.h"

namespace tadapt {
namespace {

struct Kind {
  const char* name;
  std::unique_ptr<Adapter> (*make)(const AdapterShape&, const AdapterCompute&);
};

constexpr Kind kKinds[] = {
    {"transcoder",
     [](const AdapterShape& shape, const AdapterCompute& compute) -> std::unique_ptr<Adapter> {
       return std::make_unique<Transcoder>(shape, compute);
     }},
};

}  // namespace

std::unique_ptr<Adapter> make_adapter(const std::string& type, const AdapterShape& shape,
                                      const AdapterCompute& compute) {
  for (const Kind& kind : kKinds)
    if (type == kind.name) return kind.make(shape, compute);
  throw ConfigError("adapter.type: '{}' is not one of {}", type, fmt::join(adapter_types(), ", "));
}

std::vector<std::string> adapter_types() {
  std::vector<std::string> names;
  for (const Kind& kind : kKinds) names.emplace_back(kind.name);
  return names;
}

}  // namespace tadapt
