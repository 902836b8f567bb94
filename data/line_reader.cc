#include "data/line_reader.h"

#include <algorithm>
#include <span>

namespace tadapt {

bool LineReader::next(std::string& line) {
  line.clear();
  for (;;) {
    const std::size_t end = buffer_.find('\n', place_);
    line.append(buffer_, place_, end - place_);
    ended_ = end != buffer_.npos;
    if (ended_) {
      place_ = end + 1;
      return true;
    }
    if (!fill()) return !line.empty();
  }
}

bool LineReader::fill() {
  constexpr std::uint64_t kPieceBytes = 1 << 20;
  buffer_.resize(std::min(kPieceBytes, file_->size() - offset_));
  file_->read(offset_, std::as_writable_bytes(std::span(buffer_)));
  offset_ += buffer_.size();
  place_ = 0;
  return !buffer_.empty();
}

}  // namespace tadapt
