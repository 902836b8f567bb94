#include "data/gzip.h"

#include <isa-l/igzip_lib.h>

#include <limits>
#include <memory>
#include <vector>

#include "kernels/core/error.h"

namespace tadapt {
namespace {

std::uint8_t* bytes_of(const char* text) {
  return const_cast<std::uint8_t*>(reinterpret_cast<const std::uint8_t*>(text));
}

}  // namespace

std::string gzip(std::string_view text) {
  // A block that does not compress is stored: 5 bytes each, and header and trailer.
  const std::size_t most = text.size() + text.size() / 1024 + 1024;
  if (most > std::numeric_limits<std::uint32_t>::max()) throw WriteError("gzip: {} bytes at once", text.size());
  std::vector<std::uint8_t> level_memory(ISAL_DEF_LVL1_DEFAULT);
  std::string compressed(most, '\0');
  const auto stream = std::make_unique<isal_zstream>();
  isal_deflate_stateless_init(stream.get());
  stream->level = 1;
  stream->level_buf = level_memory.data();
  stream->level_buf_size = static_cast<std::uint32_t>(level_memory.size());
  stream->gzip_flag = IGZIP_GZIP;
  stream->end_of_stream = 1;
  stream->next_in = bytes_of(text.data());
  stream->avail_in = static_cast<std::uint32_t>(text.size());
  stream->next_out = bytes_of(compressed.data());
  stream->avail_out = static_cast<std::uint32_t>(compressed.size());
  if (const int status = isal_deflate_stateless(stream.get()); status != COMP_OK || stream->avail_in != 0)
    throw WriteError("gzip: ISA-L's error {} for {} bytes", status, text.size());
  compressed.resize(compressed.size() - stream->avail_out);
  return compressed;
}

std::string gunzip(std::string_view bytes, std::size_t most, const std::string& source) {
  const auto state = std::make_unique<inflate_state>();
  isal_inflate_init(state.get());
  state->crc_flag = ISAL_GZIP;
  state->next_in = bytes_of(bytes.data());
  state->avail_in = static_cast<std::uint32_t>(bytes.size());
  std::string text;
  std::vector<std::uint8_t> block(std::size_t{1} << 16);
  do {
    state->next_out = block.data();
    state->avail_out = static_cast<std::uint32_t>(block.size());
    const int status = isal_inflate(state.get());
    const std::size_t made = block.size() - state->avail_out;
    const bool stuck = made == 0 && state->block_state != ISAL_BLOCK_FINISH;
    if (status != ISAL_DECOMP_OK || stuck || text.size() + made > most)
      throw DataError("{}: no whole gzip of at most {} bytes", source, most);
    text.append(reinterpret_cast<const char*>(block.data()), made);
  } while (state->block_state != ISAL_BLOCK_FINISH);
  return text;
}

}  // namespace tadapt
