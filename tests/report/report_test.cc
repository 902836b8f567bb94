// A report: what it says of a run directory, what it refuses, and that nothing in it is taken for HTML.
#include "runtime/report/report.h"

#include <nlohmann/json.hpp>

#include "runtime/report/sweep_record.h"
#include "runtime/report/timing_summary.h"
#include "tests/support/errors.h"
#include "tests/support/temporary_directory.h"

namespace tadapt {
namespace {
namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using Json = nlohmann::ordered_json;

class ReportTest : public ::testing::Test {
 protected:
  void put(const std::string& name, const std::string& text) {
    const fs::path path = folder_ / name;
    fs::create_directories(path.parent_path());
    write_atomically(files_, path, text);
  }
  static std::string step(std::int64_t number, double dead = 0.0) {
    return fmt::format(R"({{"step":{},"tokens":8,"trainees":{{"layer-000":{{"loss":1.5,"dead_share":{}}}}}}})", number,
                       dead) +
           "\n";
  }
  /// A run of two steps that is at its end.
  void put_run(const std::string& name, const std::string& metrics) {
    put(name + "/run.json", R"({"train.steps": 2, "train.seed": 7})");
    put(name + "/metrics.jsonl", metrics);
  }
  Json data(const std::vector<std::string>& names) {
    std::vector<fs::path> paths;
    for (const std::string& name : names) paths.push_back(folder_ / name);
    return report_data(files_, report_subjects(paths));
  }
  std::string findings(const std::string& name) { return data({name})["runs"][0]["findings"].dump(); }

  RealFileSystem files_;
  tadapt::testing::TemporaryDirectory folder_;
};

TEST_F(ReportTest, SaysWhatARunHolds) {
  put_run("run", step(1) + step(2));
  put("run/evaluation.json", R"({"step": 2})");
  put("run/evaluation-other.json", R"({"step": 1})");
  put("run/benchmark-math/benchmark.json", R"({"questions": 3})");
  const Json run = data({"run"})["runs"][0];
  EXPECT_EQ(run["name"], "run");
  EXPECT_EQ(run["step"], 2);
  EXPECT_EQ(run["total_steps"], 2);
  EXPECT_EQ(run["tokens"], 16);
  EXPECT_EQ(run["configuration"]["train.seed"], 7);
  EXPECT_EQ(run["evaluations"][0]["name"], "evaluation");
  EXPECT_EQ(run["evaluations"][1]["data"]["step"], 1);
  EXPECT_EQ(run["benchmarks"][0]["name"], "benchmark-math");
  EXPECT_EQ(run["benchmarks"][0]["data"]["questions"], 3);
  EXPECT_EQ(run["findings"], Json::array());
}

TEST_F(ReportTest, SaysWhatIsConspicuous) {
  put_run("unfinished", step(1));
  EXPECT_THAT(findings("unfinished"), HasSubstr("at step 1 of 2 (50 %)"));
  put_run("dead", step(1, 0.05) + step(2, 0.25));
  EXPECT_THAT(findings("dead"), AllOf(HasSubstr("warning"), HasSubstr("layer-000 (25 %)")));
  put_run("stopped", step(1) + "{\"step\":2,\"not_finite\":\"layer 0: the loss is not finite at step 2\"}\n");
  EXPECT_THAT(findings("stopped"), AllOf(HasSubstr("problem"), HasSubstr("layer 0: the loss is not finite at step 2")));
  put_run("null", step(1) + "{\"step\":2,\"loss\":null}\n");
  EXPECT_THAT(findings("null"), AllOf(HasSubstr("problem"), HasSubstr("loss is not finite from step 2 on")));
  put_run("slow", step(1) + step(2));
  put("slow/timing.jsonl", R"({"step":2,"seconds":10,"tokens_per_second":4,"data_stall_seconds":3,"ranks":1})"
                           "\n");
  EXPECT_THAT(findings("slow"), HasSubstr("waited for data in 30 % of its time"));
  put_run("damaged", step(1) + step(2));
  put("damaged/checkpoints/step-000000002/MANIFEST", "{}");
  EXPECT_THAT(findings("damaged"), AllOf(HasSubstr("warning"), HasSubstr("damaged")));
}

TEST_F(ReportTest, JobsAreToldApartWhereTheirSecondsBeginAnew) {
  put("timing.jsonl",
      "{\"step\":2,\"seconds\":4,\"tokens_per_second\":10,\"data_stall_seconds\":1,\"checkpoint_seconds\":0.5,"
      "\"ranks\":2}\n"
      "{\"step\":4,\"seconds\":8,\"tokens_per_second\":15,\"data_stall_seconds\":1,\"checkpoint_seconds\":1,\"ranks\":"
      "2}\n"
      "{\"step\":6,\"seconds\":2,\"tokens_per_second\":30,\"data_stall_seconds\":0,\"checkpoint_seconds\":0.5,"
      "\"ranks\":4}\n");
  const nlohmann::json summary = timing_summary(files_, folder_ / "timing.jsonl");
  ASSERT_EQ(summary["jobs"].size(), 2u);
  EXPECT_EQ(summary["jobs"][0]["parts"], (nlohmann::json{{"compute", 6.0}, {"data_stall", 1}, {"checkpoint", 1}}));
  EXPECT_EQ(summary["jobs"][0]["first_step"], 2);
  EXPECT_EQ(summary["jobs"][1]["ranks"], 4);
  EXPECT_EQ(summary["speed"], nlohmann::json::parse(R"([{"step":2,"tokens_per_second":10.0},
    {"step":4,"tokens_per_second":20.0},{"step":6,"tokens_per_second":30.0}])"));
  put("timing.jsonl", "{\"step\":2}\n");
  EXPECT_ERROR(timing_summary(files_, folder_ / "timing.jsonl"), DataError, HasSubstr("timing.jsonl:1: expected"));
}

TEST_F(ReportTest, RefusesWhatIsNoRun) {
  EXPECT_ERROR(data({"nowhere"}), MissingInputError, HasSubstr("nowhere: there is no such path"));
  put("folder/file", "");
  EXPECT_ERROR(data({"folder"}), MissingInputError, HasSubstr("folder: neither a run nor a sweep"));
  put("untrained/run.json", "{}");
  EXPECT_ERROR(data({"untrained"}), MissingInputError, HasSubstr("no metrics.jsonl"));
  put_run("empty", "");
  EXPECT_ERROR(data({"empty"}), DataError, HasSubstr("empty/metrics.jsonl: holds no step"));
  put_run("spoilt", step(1) + "oops\n");
  EXPECT_ERROR(data({"spoilt"}), DataError, HasSubstr("spoilt/metrics.jsonl:2: "));
  put_run("list", step(1));
  put("list/evaluation.json", "[1]");
  EXPECT_ERROR(data({"list"}), DataError, HasSubstr("list/evaluation.json: expected a JSON object"));
  EXPECT_ERROR(data({"list", "list"}), ConfigError, HasSubstr("is given twice"));
}

TEST_F(ReportTest, RunsOfOneNameAreCalledByTheirPaths) {
  const auto subjects = report_subjects({"/a/run", "/b/run", "/b/other/"});
  EXPECT_EQ(subjects[0].name, "/a/run");
  EXPECT_EQ(subjects[1].name, "/b/run");
  EXPECT_EQ(subjects[2].name, "other");
}

TEST_F(ReportTest, NothingOfTheDataIsReadAsHtml) {
  const std::string name = "<script>alert('x')<!-- & ", text = "</script><script>alert(1)</script>";
  put_run(name, step(1) + Json({{"step", 2}, {"not_finite", text}}).dump() + "\n");
  const Json all = data({name});
  const std::string safe = json_for_script(all);
  EXPECT_THAT(safe, Not(HasSubstr("<")));
  EXPECT_THAT(safe, Not(HasSubstr(">")));
  EXPECT_THAT(safe, Not(HasSubstr("&")));
  EXPECT_EQ(Json::parse(safe), all);
  const std::string page = report_page(all);
  EXPECT_THAT(page, HasSubstr(safe));
  EXPECT_THAT(page, Not(HasSubstr("alert(1)</script>")));
  EXPECT_THAT(page, Not(HasSubstr("src=")));
  EXPECT_THAT(page, Not(HasSubstr("/* page.")));
  EXPECT_EQ(json_for_script("\xff"), "\"\xEF\xBF\xBD\"") << "bytes that are no UTF-8";
}

TEST_F(ReportTest, ASweepIsCheckedAndItsRecommendedRunShown) {
  const std::string point =
      R"({"dictionary":512,"l1":0.01,"seed":0,"layer":"all","l0":9.5,"nmse":0.1,"kl":null,"run":"best"})";
  put_run("sweep/best", step(1) + step(2));
  put("sweep/sweep.json", R"({"points":[)" + point + R"(],"pareto":{"nmse":[0],"kl":[0]},"fits":[],"recommended":0})");
  const Json all = data({"sweep"});
  EXPECT_EQ(all["sweeps"][0]["data"]["points"][0]["l0"], 9.5);
  EXPECT_EQ(all["runs"][0]["name"], "sweep/best");

  const auto sweep = [&](const std::string& text) {
    put("sweep/sweep.json", text);
    read_sweep(files_, folder_ / "sweep");
  };
  EXPECT_ERROR(sweep("{}"), DataError, HasSubstr("sweep.json: points: expected an array, found nothing"));
  EXPECT_ERROR(sweep(R"({"points":[]})"), DataError, HasSubstr("points: expected at least one point"));
  EXPECT_ERROR(sweep(R"({"points":[{"dictionary":512}]})"), DataError, HasSubstr("points[0].seed"));
  EXPECT_ERROR(sweep(R"({"points":[)" + point + R"(],"pareto":{"nmse":[1]}})"), DataError,
               HasSubstr("pareto.nmse[0]: expected 0, found 1"));
  EXPECT_ERROR(sweep(R"({"points":[)" + point + R"(],"recommended":3})"), DataError,
               HasSubstr("recommended: expected 0"));
}

}  // namespace
}  // namespace tadapt
