#include "runtime/eval/faithfulness.h"

#include <algorithm>
#include <cmath>

#include "kernels/losses.h"
#include "runtime/eval/sequence_pass.h"

namespace tadapt {
namespace {

/// Every sequence's sums on every rank, in sequence order: rank r worked on sequences r, r + P, ….
std::vector<double> gather_in_order(Communicator& world, const std::vector<double>& mine, std::int64_t sequences,
                                    std::size_t fields) {
  const auto ranks = static_cast<std::int64_t>(world.size());
  const auto per_rank = static_cast<std::size_t>((sequences + ranks - 1) / ranks) * fields;
  std::vector<double> padded = mine;
  padded.resize(per_rank, 0.0);
  const std::vector<double> all = world.all_gather(padded, "evaluation sums");
  std::vector<double> ordered;
  ordered.reserve(static_cast<std::size_t>(sequences) * fields);
  for (std::int64_t i = 0; i < sequences; ++i) {
    const auto begin = all.begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(i % ranks) * per_rank +
                                                                 static_cast<std::size_t>(i / ranks) * fields);
    ordered.insert(ordered.end(), begin, begin + static_cast<std::ptrdiff_t>(fields));
  }
  return ordered;
}

/// How many features of each layer were active on some token of some rank.
std::vector<double> dead_shares(Communicator& world, const std::vector<std::vector<double>>& active) {
  std::vector<double> mine;
  for (const std::vector<double>& layer : active) mine.insert(mine.end(), layer.begin(), layer.end());
  const std::vector<double> all = world.all_gather(mine, "feature activity");
  std::vector<double> shares;
  std::size_t begin = 0;
  for (const std::vector<double>& layer : active) {
    double dead = 0.0;
    for (std::size_t i = begin; i < begin + layer.size(); ++i) {
      bool alive = false;
      for (std::size_t rank = 0; rank < static_cast<std::size_t>(world.size()); ++rank)
        alive = alive || all[rank * mine.size() + i] > 0.0;
      dead += alive ? 0.0 : 1.0;
    }
    shares.push_back(dead / static_cast<double>(std::max<std::size_t>(1, layer.size())));
    begin += layer.size();
  }
  return shares;
}

/// NonFiniteError naming line and place unless all sums of the sequences that begin in these lines are finite.
void require_finite(const SequenceFields& fields, std::span<const double> sums,
                    const std::vector<std::int64_t>& lines) {
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const std::string what = fields.non_finite(sums.subspan(i * fields.count(), fields.count()));
    if (!what.empty()) throw NonFiniteError("evaluation: line {} of the corpus: {} not finite", lines[i], what);
  }
}

Agreement agreement(const double* fields) { return {fields[0], fields[1], fields[2]}; }

FaithfulnessReport report_from(const SequenceFields& fields, const std::vector<double>& total, std::int64_t tokens) {
  FaithfulnessReport report;
  report.tokens = tokens;
  const auto model = [&](std::size_t index) {
    const double* at = &total[fields.agreement(index)];
    return ModelAgreement{fields.models[index], agreement(at), agreement(at + 3), agreement(at + 6)};
  };
  for (std::size_t i = 0; i < fields.models.size(); ++i)
    (i < fields.main_models ? report.models : report.partial).push_back(model(i));
  const ModelAgreement& any = report.models.front();
  const auto itself = [](const Agreement& counted) { return Agreement{counted.tokens, 0.0, 0.0}; };
  report.models.push_back({"target", itself(any.all), itself(any.response), itself(any.uncertain)});
  for (std::size_t state = 0; state < fields.states; ++state) {
    const double* at = &total[fields.state(state)];
    const double numbers = static_cast<double>(tokens) * static_cast<double>(fields.width);
    const auto nmse = [&](double error) { return (error / numbers) / (at[0] / numbers + 1e-8); };
    report.hybrid_residual_nmse.push_back(nmse(at[1]));
    report.adapter_residual_nmse.push_back(nmse(at[2]));
  }
  for (std::size_t i = 0; i < fields.layers.size(); ++i) {
    const double* at = &total[fields.layer(i)];
    report.layers.push_back({.layer = fields.layers[i],
                             .delta_nmse = at[1] > 0.0 ? at[0] / at[1] : 0.0,
                             .l0 = at[2] / static_cast<double>(tokens)});
  }
  return report;
}

}  // namespace

Agreement& Agreement::operator+=(const Agreement& other) {
  tokens += other.tokens;
  kl += other.kl;
  disagreements += other.disagreements;
  return *this;
}

double FaithfulnessReport::mean_l0() const {
  double sum = 0.0;
  for (const LayerFaithfulness& layer : layers) sum += layer.l0;
  return layers.empty() ? 0.0 : sum / static_cast<double>(layers.size());
}

FaithfulnessReport evaluate_faithfulness(Context& context, Communicator& world, const FaithfulnessModels& models,
                                         const TokenDataset& corpus, const FaithfulnessOptions& options) {
  SequencePass pass(context, models, options);
  std::vector<double> mine;
  TokenBatch batch;
  std::vector<std::int64_t> response_starts, lines;
  std::int64_t done = 0;
  const auto flush = [&] {
    if (batch.tokens() == 0) return;
    if (options.stop_requested && options.stop_requested())
      throw Error(ExitCode::kRequeue, "evaluation stopped on a signal; nothing was written");
    const std::vector<double> sums = pass.run(batch, response_starts);
    require_finite(pass.fields(), sums, lines);
    mine.insert(mine.end(), sums.begin(), sums.end());
    done += batch.sequences();
    if (options.progress) options.progress(done * world.size());
    batch.clear();
    response_starts.clear();
    lines.clear();
  };
  const std::int64_t sequences = corpus.size();
  for (std::int64_t i = world.rank(); i < sequences; i += world.size()) {
    const TokenSequence sequence = corpus.sequence(i);
    const auto length = static_cast<std::int64_t>(sequence.ids.size());
    if (batch.tokens() > 0 && batch.tokens() + length > options.batch_tokens) flush();
    batch.append(sequence.ids);
    response_starts.push_back(sequence.response_start);
    lines.push_back(sequence.line);
  }
  flush();

  const SequenceFields& fields = pass.fields();
  const std::vector<double> ordered = gather_in_order(world, mine, sequences, fields.count());
  std::vector<double> total(fields.count(), 0.0);
  for (std::size_t i = 0; i < ordered.size(); ++i) total[i % fields.count()] += ordered[i];
  FaithfulnessReport report = report_from(fields, total, corpus.total_tokens());
  report.sequences = sequences;
  report.base_refusal = models.base_refusal;
  const std::vector<double> dead = dead_shares(world, pass.active_tokens());
  for (std::size_t i = 0; i < report.layers.size(); ++i) report.layers[i].dead_share = dead[i];
  return report;
}

}  // namespace tadapt
