// A report: runs and sweeps as one HTML page that needs nothing else, not even a network.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "data/file.h"

namespace tadapt {

/// What a report is about: a run directory, or a folder with a sweep.json, of which the recommended run is shown too.
struct ReportSubject {
  std::filesystem::path path;
  std::string name;  ///< how the page calls it
};

/// Names for these folders: their last parts, or all of a path where two would be called the same. ConfigError when one
/// is given twice.
std::vector<ReportSubject> report_subjects(const std::vector<std::filesystem::path>& paths);

/// What the page shows (docs/formats.md). MissingInputError for a folder that is neither a run nor a sweep, and the
/// errors of read_run and read_sweep.
nlohmann::ordered_json report_data(FileSystem& files, const std::vector<ReportSubject>& subjects);

/// The page, its data inside.
std::string report_page(const nlohmann::ordered_json& data);

/// The page of a study of features: {title, studies: [{name, data}]}, data as to_json(HesitationStudy) gives it.
std::string study_page(const nlohmann::ordered_json& data);

/// JSON that may stand in a <script> element: nothing in it ends the element or opens a comment.
std::string json_for_script(const nlohmann::ordered_json& data);

}  // namespace tadapt
