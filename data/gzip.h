// gzip, for formats of others that want it.
#pragma once

#include <string>
#include <string_view>

namespace tadapt {

/// One gzip member (RFC 1952) without name or time. Equal texts give equal bytes on one machine; processors with other
/// instruction sets may compress differently. WriteError for 4 GiB and more.
std::string gzip(std::string_view text);

/// What gzip() was given; DataError naming `source` when the bytes are no gzip, damaged, or hold more than `most`
/// bytes.
std::string gunzip(std::string_view bytes, std::size_t most, const std::string& source);

}  // namespace tadapt
