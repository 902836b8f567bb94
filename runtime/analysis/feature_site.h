// The feature site: everything a feature store holds as pages that open from a folder, without a server or network.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>

#include "data/file.h"
#include "runtime/train/run_environment.h"

namespace tadapt {

/// The first file of a site: what it is of. A folder that holds it may be replaced.
inline constexpr char kFeatureSiteFile[] = "site.json";

struct FeatureSiteRequest {
  std::filesystem::path features;     ///< a feature store
  std::filesystem::path out;          ///< a folder that is not there, empty, or a site
  std::filesystem::path graphs = {};  ///< attribution graphs of the same adapters; empty: none
  std::filesystem::path labels = {};  ///< see SiteLabels; empty: none
};

struct FeatureSiteSummary {
  std::int64_t features = 0, labels = 0, graphs = 0;
};

/// Writes the site beside `out` and puts it there when it is whole; until then an older one stays. The files depend on
/// the request alone. Ranks share layers, each in memory one layer at a time. Errors of FeatureStore, SiteLabels and
/// read_graph; WriteError when `out` is something else than a site, ConfigError when what is read lies in it, and for
/// graphs or labels of other adapters. Collective.
FeatureSiteSummary write_feature_site(const FeatureSiteRequest& request, const RunEnvironment& environment);

/// MissingInputError unless a whole site is there.
void require_feature_site(FileSystem& files, const std::filesystem::path& directory);

/// The content of one of runtime/analysis/feature_site/, which are part of the program (cmake/embed.cmake).
std::string_view feature_site_file(std::string_view name);

}  // namespace tadapt
