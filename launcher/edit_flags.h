// Flags that change adapters before they run or are written: features taken out, kept alone, added to the target.
#pragma once

#include "launcher/arguments.h"
#include "runtime/bundle/feature_edit.h"

namespace tadapt {

/// --remove, --keep-only, --add-to-target, --scale, --without-decoder-bias.
void add_edit_flags(boost::program_options::options_description& flags);

/// What they ask for. ConfigError naming the flags that exclude each other or a scale that is no number; the errors of
/// read_feature_set.
FeatureEdit edit_of(const ParsedArguments& arguments, const Process& process);

/// "-without-hesitation": what is put to the names of results that would otherwise be those of the unedited adapters.
std::string suffix_of(const FeatureEdit& edit);

}  // namespace tadapt
