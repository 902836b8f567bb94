#include "runtime/train/held_out.h"

namespace tadapt {
namespace {
constexpr std::size_t kFields = 3;  // Σ‖Δ−T‖², Σ‖Δ‖², active pairs of one piece
}

HeldOut::HeldOut(const RowReader& reader, Communicator& world, const ProcessGrid& grid, RowPieces pieces)
    : reader_(reader), world_(world), grid_(grid), pieces_(pieces) {}

std::vector<Figures> HeldOut::evaluate(Context& context, LocalLossPass& pass, const std::vector<Trainee>& trainees) {
  if (pieces_.rows() == 0) return {};
  const int members = grid_.data_parallel();
  const std::int64_t my_place = grid_.index_of(world_.rank());
  const std::size_t per_trainee = static_cast<std::size_t>(pieces_.most_pieces_of_one(members)) * kFields;
  const auto layers = grid_.layers_of_block(grid_.block_of(world_.rank()));
  const std::size_t runs = trainees.size() / layers.size();
  std::vector<double> mine(grid_.layers_of_block(0).size() * runs * per_trainee, 0.0);
  Buffer x(Device::kCpu, reader_.row_dtype(), {pieces_.piece_rows, reader_.width()});
  Buffer delta(Device::kCpu, reader_.row_dtype(), {pieces_.piece_rows, reader_.width()});
  for (std::size_t layer = 0; layer < layers.size(); ++layer) {
    for (std::int64_t piece = my_place; piece < pieces_.count(); piece += members) {
      const std::int64_t begin = pieces_.first_row(piece), count = pieces_.rows_of(piece);
      const Tensor x_rows = x.tensor().rows(0, count), delta_rows = delta.tensor().rows(0, count);
      reader_.read_rows(layers[layer], begin, begin + count, x_rows, delta_rows);
      for (std::size_t i = layer * runs; i < (layer + 1) * runs; ++i) {
        const auto sums = pass.evaluate(context, *trainees[i].adapter, x_rows, delta_rows);
        double* fields = &mine[i * per_trainee + static_cast<std::size_t>(piece / members) * kFields];
        fields[0] = sums.square_error;
        fields[1] = sums.delta_square;
        fields[2] = static_cast<double>(sums.active);
      }
    }
  }
  const std::vector<double> all = world_.all_gather(mine, "held-out sums");

  std::vector<Figures> metrics;
  for (int block = 0; block < grid_.blocks(); ++block) {
    for (std::size_t place = 0; place < grid_.layers_of_block(block).size() * runs; ++place) {
      double sums[kFields] = {};
      for (std::int64_t piece = 0; piece < pieces_.count(); ++piece) {
        const int rank = grid_.rank_of(block, RowPieces::member(piece, members));
        const double* fields = &all[static_cast<std::size_t>(rank) * mine.size() + place * per_trainee +
                                    static_cast<std::size_t>(piece / members) * kFields];
        for (std::size_t f = 0; f < kFields; ++f) sums[f] += fields[f];
      }
      metrics.push_back(
          {{"nmse", sums[1] > 0.0 ? sums[0] / sums[1] : 0.0}, {"l0", sums[2] / static_cast<double>(pieces_.rows())}});
    }
  }
  return metrics;
}

}  // namespace tadapt
