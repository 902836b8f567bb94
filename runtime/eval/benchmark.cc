#include "runtime/eval/benchmark.h"

#include "runtime/eval/model_set.h"
#include "runtime/train/agreement.h"

namespace tadapt {

Benchmark run_benchmark(const QuestionRequest& request, const AdapterSource& adapters,
                        const RunEnvironment& environment) {
  const RunOptions& options = request.options;
  const QuestionSet questions(request, environment);
  std::vector<ModelKind> kinds;
  std::string base_refusal;
  agree(environment.world, [&] {
    const DecoderConfig base = load_decoder_config(environment.files, options.model.base),
                        target = load_decoder_config(environment.files, options.model.target);
    base_refusal = base_row_refusal(base, target).value_or("");
    if (base_refusal.empty()) {
      require_room(questions.prompts(), base);
      kinds.push_back(ModelKind::kBase);
    }
    kinds.push_back(ModelKind::kHybrid);
    if (!adapters.path.empty()) kinds.push_back(ModelKind::kAdapter);
    kinds.push_back(ModelKind::kTarget);
  });
  ModelSet models(options, adapters, kinds, environment);
  std::vector<ModelResponses> graded;
  for (const ModelKind kind : kinds)
    graded.push_back(questions.ask({name(kind), models.model(kind), models.identity(kind)}));
  if (environment.world.rank() != 0) return {};
  Benchmark benchmark{.subject = questions.subject(),
                      .report = score_benchmark(graded, questions.size(), request.generation.seed)};
  if (!models.edits().empty()) benchmark.subject["edits"] = models.edits();
  benchmark.report.base_refusal = base_refusal;
  return benchmark;
}

}  // namespace tadapt
