// The feature site: what its chunks say is what the store holds; what may be replaced, and what is refused.
#include "runtime/analysis/feature_site.h"

#include <nlohmann/json.hpp>

#include "runtime/analysis/feature_labels.h"
#include "runtime/analysis/site_chunk.h"
#include "runtime/analysis/site_features.h"
#include "runtime/analysis/site_graphs.h"
#include "runtime/analysis/site_index.h"
#include "tests/analysis/features_fixture.h"

namespace tadapt {
namespace {
namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Le;

std::string decoded_base64(const std::string& text) {
  const std::string letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes;
  unsigned collected = 0, bits = 0;
  for (const char letter : text) {
    if (letter == '=') break;
    collected = collected << 6 | static_cast<unsigned>(letters.find(letter));
    bits += 6;
    if (bits < 8) continue;
    bits -= 8;
    bytes += static_cast<char>(collected >> bits & 255);
  }
  return bytes;
}

template <class Stored>
std::vector<double> values_of(const std::string& bytes) {
  std::vector<Stored> values(bytes.size() / sizeof(Stored));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return {values.begin(), values.end()};
}

/// As the page reads a column.
std::vector<double> numbers(const Json& column) {
  if (column.is_array()) return column.get<std::vector<double>>();
  const auto text = column.get<std::string>();
  const std::string type = text.substr(0, text.find(':')), bytes = decoded_base64(text.substr(text.find(':') + 1));
  if (type == "u8") return values_of<std::uint8_t>(bytes);
  if (type == "u16") return values_of<std::uint16_t>(bytes);
  if (type == "u32") return values_of<std::uint32_t>(bytes);
  if (type == "f32") return values_of<float>(bytes);
  EXPECT_EQ(type, "f64");
  return values_of<double>(bytes);
}

Json integers(const std::vector<std::int64_t>& values) { return site_column(values); }
Json floats(const std::vector<float>& values) { return site_column(values); }

TEST(SiteColumns, AreWrittenInTheShorterWay) {
  EXPECT_EQ(integers({}), Json::array());
  EXPECT_EQ(integers({0, 7, 12}), Json({0, 7, 12}));
  EXPECT_EQ(integers(std::vector<std::int64_t>(9, 200)), "u8:yMjIyMjIyMjI");
  EXPECT_EQ(integers({300, 65535, 1000, 40000, 50000}).get<std::string>().substr(0, 4), "u16:");
  EXPECT_EQ(integers({0, 1, 2, 3, 0, 0, 1'000'000}), Json({0, 1, 2, 3, 0, 0, 1'000'000}));
  EXPECT_EQ(floats({0.0f, 0.1f, 2.5f}).dump(), "[0.0,0.1,2.5]");
}

TEST(SiteColumns, KeepEveryNumber) {
  for (const std::int64_t most : {1LL, 255LL, 256LL, 65535LL, 65536LL, (1LL << 32) - 1, 1LL << 32, 1LL << 53}) {
    for (const std::size_t size : {1, 2, 3, 4, 100}) {
      std::vector<std::int64_t> values(size, most);
      values[size / 2] = most / 3;
      EXPECT_EQ(numbers(integers(values)), std::vector<double>(values.begin(), values.end())) << most;
    }
  }
  std::vector<float> values;
  for (int i = 0; i < 100; ++i) values.push_back(std::ldexp(1.0f / 3.0f, i - 50));
  EXPECT_EQ(numbers(floats(values)), std::vector<double>(values.begin(), values.end()));
}

TEST(SiteColumns, RefuseWhatAPageCouldNotHold) {
  EXPECT_ERROR(integers({3, -1}), DataError, HasSubstr("expected a number of 0 to 2^53, found -1"));
  EXPECT_ERROR(integers({(1LL << 53) + 1}), DataError, HasSubstr("found 9007199254740993"));
  EXPECT_ERROR(floats({1.0f, NAN}), DataError, HasSubstr("expected finite numbers, found nan"));
}

TEST(SiteChunks, AreAsciiWhateverTokensSay) {
  const Json texts = {"</script><b>\"'`${x}", "\u202e\u0000z", "\u2028", "日本", "\\xe6", "\n\t"};
  const std::string script = chunk_script("vocabulary", texts);
  EXPECT_THAT(script, AllOf(::testing::StartsWith("tadapt(\"vocabulary\",["), ::testing::EndsWith("]);\n")));
  EXPECT_THAT(std::vector<int>(script.begin(), script.end()), Each(AllOf(Le(126), ::testing::Ge(10))));
  const std::size_t begin = script.find(',') + 1;
  EXPECT_EQ(Json::parse(script.substr(begin, script.size() - 3 - begin)), texts);
}

TEST(LargestPart, IsOfTheWhole) {
  const std::vector<std::int64_t> counts = {1, 0, 5, 2}, none = {0, 0};
  EXPECT_EQ(largest_part(counts).part, 2);
  EXPECT_EQ(largest_part(counts).percent, 62);
  EXPECT_EQ(largest_part(none).percent, 0);
}

Json small_graph() {
  const auto node = [](const char* id, const char* type, double probability) {
    return Json{{"node_id", id}, {"feature_type", type}, {"token_prob", probability}};
  };
  const auto edge = [](const char* from, const char* to, double weight) {
    return Json{{"source", from}, {"target", to}, {"weight", weight}};
  };
  const char* feature = "cross layer transcoder";
  return {{"metadata", {{"slug", "small"}, {"prompt", "a b"}, {"prompt_tokens", {"a", "b"}}}},
          {"nodes",
           {node("E_7_1", "embedding", 0), node("0_3_1", feature, 0), node("2_5_1", feature, 0),
            node("4_9_1", "logit", 0.5)}},
          {"links",
           {edge("E_7_1", "0_3_1", 0.25), edge("E_7_1", "2_5_1", -2.0), edge("0_3_1", "2_5_1", 1.0),
            edge("2_5_1", "4_9_1", 3.0)}}};
}

TEST(GraphNeighbours, AreTheStrongestEdgesOfAFeature) {
  GraphNeighbours neighbours;
  const SiteGraph graph = neighbours.add(nlohmann::json(small_graph()), 4, {2}, "small.json");
  EXPECT_EQ(graph.tokens, 2);
  EXPECT_EQ(graph.features, 2);
  EXPECT_EQ(graph.edges, 4);
  const Json found = neighbours.of(2, 5);
  EXPECT_EQ(found["in"].dump(), R"([["t",0,7,1,0.0,-2.0,4,1],["f",0,3,1,0.0,1.0,4,1]])");
  EXPECT_EQ(found["out"].dump(), R"([["l",4,9,1,0.5,3.0,4,1]])");
  EXPECT_TRUE(neighbours.of(0, 3).is_null()) << "of a layer that was not asked for";
  Json many = small_graph();
  for (int i = 0; i < 40; ++i) {
    const std::string id = fmt::format("0_{}_1", 100 + i);
    many["nodes"].push_back({{"node_id", id}, {"feature_type", "cross layer transcoder"}, {"token_prob", 0.0}});
    many["links"].push_back({{"source", id}, {"target", "2_5_1"}, {"weight", i % 2 == 0 ? i : -i}});
  }
  neighbours.add(nlohmann::json(many), 5, {2}, "many.json");
  const Json edges = neighbours.of(2, 5)["in"];
  EXPECT_EQ(edges.size(), kNeighbours);
  EXPECT_EQ(edges[0][2], 139);
  EXPECT_EQ(edges[0][5], -39.0);
  EXPECT_EQ(edges[kNeighbours - 1][5], 28.0);
}

TEST(GraphNeighbours, RefuseWhatIsNoGraph) {
  const auto with = [](const char* place, const Json& value) {
    Json graph = small_graph();
    graph[Json::json_pointer(place)] = value;
    GraphNeighbours().add(nlohmann::json(graph), 0, {0, 2}, "graph.json");
  };
  EXPECT_ERROR(with("/nodes/1/node_id", "0_3"), DataError, HasSubstr("graph.json: nodes[1].node_id"));
  EXPECT_ERROR(with("/nodes/1/node_id", "0_-3_1"), DataError, HasSubstr("expected LAYER_FEATURE_POSITION"));
  EXPECT_ERROR(with("/links/2/target", "9_9_9"), DataError, HasSubstr("links[2]"));
  EXPECT_ERROR(with("/links/2/weight", "much"), DataError, HasSubstr("links[2].weight: expected a number"));
  EXPECT_ERROR(with("/metadata", 3), DataError, HasSubstr("graph.json: metadata"));
}

class FeatureSite : public testing::FeaturesFixture {
 protected:
  void SetUp() override {
    FeaturesFixture::SetUp();
    if (!IsSkipped()) collect(request("store"));
  }

  FeatureSiteSummary write(const FeatureSiteRequest& request, Communicator& world) {
    Context context = Context::cpu(1);
    return write_feature_site(request, {.files = files_,
                                        .world = world,
                                        .context = context,
                                        .who = "test",
                                        .print = [](const std::string&) {},
                                        .stop_requested = [] { return false; },
                                        .heartbeat = [](const std::string&) {}});
  }
  FeatureSiteSummary write(const FeatureSiteRequest& request) {
    SelfCommunicator self;
    return write(request, self);
  }
  FeatureSiteRequest site(const std::string& out) { return {.features = folder_ / "store", .out = folder_ / out}; }

  Json chunk(const std::string& out, const std::string& name) {
    const std::string script = read_text(files_, folder_ / out / "data" / (name + ".js"));
    const std::string call = fmt::format("tadapt(\"{}\",", name);
    EXPECT_TRUE(script.starts_with(call)) << script.substr(0, 100);
    return Json::parse(script.substr(call.size(), script.size() - call.size() - 3));
  }
  Json page_data(const std::string& out) {
    const std::string page = read_text(files_, folder_ / out / "index.html");
    const std::string mark = R"(<script type="application/json" id="data">)";
    const std::size_t begin = page.find(mark) + mark.size();
    return Json::parse(page.substr(begin, page.find("</script>", begin) - begin));
  }

  std::string adapters() { return FeatureStore(files_, folder_ / "store").description().identity; }
  void write_labels(const std::string& of, int feature) {
    std::string lines;
    const auto add = [&](LabelTask task, const Json& label) {
      lines += to_line({.adapters = of,
                        .task = task,
                        .layer = 2,
                        .feature = feature,
                        .label = label,
                        .problem = {},
                        .id = {},
                        .model = {},
                        .prompt_version = {},
                        .prompt = {},
                        .answer = {}});
    };
    add(LabelTask::kClassify, "reasoning/hesitation");
    add(LabelTask::kDescribe, "</script> waits");
    write_atomically(files_, folder_ / "labels.jsonl", lines);
  }
  void write_graphs(const std::string& of) {
    files_.make_directories(folder_ / "graphs");
    const auto put = [&](const char* name, const Json& json) {
      write_atomically(files_, folder_ / "graphs" / name, json.dump());
    };
    put("small.json", small_graph());
    put("small.balances.json", {{"adapters", of}, {"targets", Json::array()}});
    put("graph-metadata.json", {{"graphs", {{{"slug", "small"}}}}});
  }
};
INSTANTIATE_TEST_SUITE_P(Device, FeatureSite, ::testing::Values(Device::kCpu), testing::device_name);

TEST_P(FeatureSite, SaysWhatTheStoreHolds) {
  EXPECT_EQ(write(site("site")).features, 2 * testing::kTestFeatures);
  const FeatureStore store(files_, folder_ / "store");
  const StoredTokens tokens = store.tokens();
  const Json sequences = chunk("site", "sequences");
  const std::vector<double> begins = numbers(sequences["begin"]), ids = numbers(chunk("site", "tokens/00000"));
  EXPECT_EQ(chunk("site", "vocabulary").size(), static_cast<std::size_t>(tokens.vocabulary_size()));
  EXPECT_EQ(ids, std::vector<double>(tokens.ids().begin(), tokens.ids().end()));
  for (const int number : store.layers()) {
    const StoredLayer layer = store.layer(number);
    const Json index = chunk("site", fmt::format("index/{:03d}", number));
    const Json features = chunk("site", fmt::format("features/{:03d}/0000", number)), &examples = features["examples"];
    const std::vector<double> example_begin = numbers(examples["begin"]), near_begin = numbers(examples["near_begin"]);
    for (std::size_t i = 0; i < testing::kTestFeatures; ++i) {
      const StoredFeature feature = layer.feature(static_cast<std::int64_t>(i));
      EXPECT_EQ(numbers(index["id"])[i], feature.id);
      EXPECT_EQ(numbers(index["active"])[i], feature.counts.active);
      EXPECT_EQ(numbers(index["largest"])[i], feature.top.empty() ? 0.0f : feature.top[0].activation);
      EXPECT_EQ(numbers(index["promoted"])[10 * i + 9], feature.promoted[9].id);
      EXPECT_EQ(numbers(features["histogram"])[kHistogramBins * i + 31], feature.counts.histogram[31]);
      EXPECT_EQ(numbers(features["by_region"])[kRegionNames.size() * i + 5], feature.counts.by_region[5]);
      EXPECT_EQ(numbers(features["suppressed"]["logit"])[10 * i], feature.suppressed[0].logit);
      EXPECT_EQ(numbers(examples["top"])[i], feature.top.size());
      std::vector<StoredExample> all = feature.top;
      all.insert(all.end(), feature.sampled.begin(), feature.sampled.end());
      ASSERT_EQ(example_begin[i + 1] - example_begin[i], all.size());
      for (std::size_t e = 0; e < all.size(); ++e) {
        const auto at = static_cast<std::size_t>(example_begin[i]) + e;
        const auto sequence = static_cast<std::size_t>(numbers(examples["sequence"])[at]);
        EXPECT_EQ(numbers(sequences["number"])[sequence], all[e].sequence);
        const double token = begins[sequence] + numbers(examples["position"])[at];
        EXPECT_EQ(ids[static_cast<std::size_t>(token)],
                  tokens.with_number(all[e].sequence).ids[static_cast<std::size_t>(all[e].position)]);
        ASSERT_EQ(near_begin[at + 1] - near_begin[at], all[e].near.size());
        const auto near = static_cast<std::size_t>(near_begin[at]);
        EXPECT_EQ(numbers(examples["near_place"])[near], all[e].near[0].offset + kTokensBefore);
        EXPECT_EQ(numbers(examples["near_activation"])[near], all[e].near[0].activation);
      }
    }
  }
}

TEST_P(FeatureSite, HoldsTheFirstRowsInThePage) {
  write(site("site"));
  const Json data = page_data("site");
  EXPECT_EQ(data["layers"][1]["layer"], 2);
  EXPECT_EQ(data["layers"][1]["features"], testing::kTestFeatures);
  EXPECT_EQ(data["layers"][1]["begins"], Json::array({0}));
  ASSERT_EQ(data["first"].size(), 2u * testing::kTestFeatures);
  std::int64_t before = std::numeric_limits<std::int64_t>::max();
  for (const Json& row : data["first"]) {
    EXPECT_LE(row[2], before);
    before = row[2];
    EXPECT_EQ(row[10].size(), 10u);
  }
}

TEST_P(FeatureSite, AnyNumberOfRanksWritesTheSameFiles) {
  write_labels(adapters(), 3);
  write_graphs(adapters());
  const auto request = [&](const std::string& out) {
    FeatureSiteRequest all = site(out);
    all.graphs = folder_ / "graphs";
    all.labels = folder_ / "labels.jsonl";
    return all;
  };
  const FeatureSiteSummary summary = write(request("one"));
  EXPECT_EQ(summary.labels, 1);
  EXPECT_EQ(summary.graphs, 1);
  testing::run_ranks(3, [&](Communicator& world) { write(request("three"), world); });
  expect_same_files("one", "three");
  EXPECT_THAT(read_text(files_, folder_ / "one/graphs/small.html"),
              HasSubstr("../index.html#/feature/{layer}/{feature}"));
  const Json features = chunk("one", "features/002/0000");
  EXPECT_EQ(features["labels"].dump(), R"({"3":{"class":1,"description":"</script> waits"}})");
  EXPECT_EQ(features["edges"]["5"]["in"].size(), 2u);
  EXPECT_EQ(page_data("one")["classes"], Json({"", "reasoning/hesitation"}));
  EXPECT_EQ(numbers(chunk("one", "index/002")["class"])[3], 1);
}

TEST_P(FeatureSite, ReplacesOnlySites) {
  write(site("site"));
  write_atomically(files_, folder_ / "site/data/index/999.js", "old");
  write(site("site"));
  EXPECT_FALSE(files_.exists(folder_ / "site/data/index/999.js"));
  EXPECT_FALSE(files_.exists(folder_ / "site.tmp"));
  files_.make_directories(folder_ / "empty");
  write(site("empty/"));
  require_feature_site(files_, folder_ / "empty");

  EXPECT_ERROR(write(site("store")), ConfigError, HasSubstr("would be replaced, with"));
  EXPECT_ERROR(write(site("target")), WriteError, HasSubstr("target: is there and is no feature site"));
  EXPECT_ERROR(write(site("corpus.jsonl")), WriteError, HasSubstr("corpus.jsonl: is there and is no feature site"));
  EXPECT_ERROR(require_feature_site(files_, folder_ / "target"), MissingInputError, HasSubstr("holds no feature site"));
  write_atomically(files_, folder_ / "new.tmp", "somebody's");
  EXPECT_ERROR(write(site("new")), WriteError, HasSubstr("new.tmp: is there"));
}

TEST_P(FeatureSite, AFailureLeavesTheOldSite) {
  write(site("site"));
  const auto before = files_below("site");
  const fs::path layer = folder_ / "store/layer-002.h5";
  std::string bytes = read_text(files_, layer);
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 4);
  write_atomically(files_, layer, bytes.substr(0, bytes.size() - 40));
  EXPECT_ERROR(write(site("site")), DataError, HasSubstr("layer-002.h5"));
  EXPECT_EQ(files_below("site"), before);
  fs::remove(folder_ / "store/features.json");
  EXPECT_ERROR(write(site("site")), MissingInputError, HasSubstr("or not to the end"));
}

TEST_P(FeatureSite, WhatIsOfOtherAdaptersIsRefused) {
  FeatureSiteRequest request = site("site");
  request.labels = folder_ / "labels.jsonl";
  EXPECT_ERROR(write(request), MissingInputError, HasSubstr("labels.jsonl"));
  write_labels("transcoder 0123", 3);
  EXPECT_ERROR(write(request), ConfigError, HasSubstr("labels for features of \"transcoder 0123\""));
  write_labels(adapters(), testing::kTestFeatures);
  EXPECT_ERROR(write(request), DataError, HasSubstr("a label for feature 12 of the 12 of layer 2"));
  request.labels.clear();
  request.graphs = folder_ / "graphs";
  EXPECT_ERROR(write(request), MissingInputError, HasSubstr("there is no graph-metadata.json"));
  write_graphs("transcoder 0123");
  EXPECT_ERROR(write(request), ConfigError, HasSubstr("a graph of the adapters \"transcoder 0123\""));
  write_graphs(adapters());
  write_atomically(files_, folder_ / "graphs/graph-metadata.json", R"({"graphs":[{"slug":"../small"}]})");
  EXPECT_ERROR(write(request), DataError, HasSubstr("expected the name of a file"));
  EXPECT_FALSE(files_.exists(folder_ / "site"));
}

}  // namespace
}  // namespace tadapt
