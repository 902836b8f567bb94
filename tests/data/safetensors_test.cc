// safetensors: what is written reads back, and what is hostile is refused with one line that names it.
#include "data/safetensors.h"

#include <numeric>

#include "tests/support/errors.h"
#include "tests/support/faulty_file_system.h"
#include "tests/support/temporary_directory.h"

namespace tadapt {
namespace {
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::TemporaryDirectory;

/// A file built byte by byte from the format's description, independently of the writer.
std::string raw_file(std::string_view header, std::string_view data) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes.push_back(static_cast<char>(header.size() >> (8 * i)));
  return bytes.append(header).append(data);
}

class SafetensorsTest : public ::testing::Test {
 protected:
  void put(const std::string& name, std::string_view text) {
    const auto file = files_.open(folder_ / name, OpenMode::kCreate);
    file->write(0, std::as_bytes(std::span(text)));
  }
  SafetensorsFile raw(std::string_view header, std::string_view data) {
    put("raw.safetensors", raw_file(header, data));
    return SafetensorsFile(folder_ / "raw.safetensors");
  }
  /// Expects the file to be refused with a message that names it and holds `words`.
  void expect_refused(std::string_view header, std::string_view data, const std::string& words) {
    SCOPED_TRACE(header.substr(0, 200));
    EXPECT_ERROR(raw(header, data), DataError, AllOf(HasSubstr("raw.safetensors: "), HasSubstr(words)));
  }

  RealFileSystem files_;
  TemporaryDirectory folder_;
};

TEST_F(SafetensorsTest, RoundTripOfEveryTypeAndRank) {
  std::vector<float> f32{1.5f, -2.0f, 3.25f, 0.0f, -0.0f, 1e-40f};
  std::vector<bfloat16> bf16{bfloat16(1.0f), bfloat16(-3.5f)};
  std::vector<std::uint16_t> f16{0x3c00};
  std::vector<double> f64{1e300};
  std::vector<std::int8_t> i8{-128, 0, 127};
  std::vector<std::int32_t> i32{-7};
  std::vector<std::int64_t> i64{INT64_MIN, INT64_MAX};
  const NamedTensors tensors{
      {"matrix", Tensor::of(std::span(f32), {2, 3})},     {"vector", Tensor::of(std::span(bf16), {2})},
      {"half", Tensor(f16.data(), DType::kFloat16, {1})}, {"scalar", Tensor::of(std::span(f64), {})},
      {"cube", Tensor::of(std::span(i8), {1, 3, 1})},     {"four", Tensor::of(std::span(i32), {1, 1, 1, 1})},
      {"long", Tensor::of(std::span(i64), {2})},          {"nothing", Tensor(nullptr, DType::kFloat32, {0, 5})},
      {"odd \"name\"\n", Tensor::of(std::span(i8), {3})},
  };
  write_safetensors(files_, folder_ / "a", tensors, {{"format", "pt"}});
  const SafetensorsFile file(folder_ / "a");
  EXPECT_EQ(file.names().size(), tensors.size());
  EXPECT_EQ(file.header().metadata.at("format"), "pt");
  EXPECT_EQ(file.header().data_start % 8, 0u);
  for (const auto& [name, tensor] : tensors) {
    const Tensor back = file.tensor(name);
    EXPECT_EQ(back.dtype(), tensor.dtype()) << name;
    EXPECT_EQ(back.shape(), tensor.shape()) << name;
    if (tensor.bytes() > 0) {
      EXPECT_EQ(std::memcmp(back.data(), tensor.data(), tensor.bytes()), 0) << name;
    }
  }
}

TEST_F(SafetensorsTest, EqualInputGivesEqualBytesAndTheRecordDescribesThem) {
  std::vector<float> values(1000);
  std::iota(values.begin(), values.end(), 0.5f);
  std::vector<std::int8_t> small{1, 2, 3};
  const NamedTensors tensors{{"a.small", Tensor::of(std::span(small), {3})},
                             {"b", Tensor::of(std::span(values), {10, 100})}};
  const SafetensorsRecord record = write_safetensors(files_, folder_ / "one", tensors, {{"k", "v"}});
  write_safetensors(files_, folder_ / "two", tensors, {{"k", "v"}});
  const std::string text = read_text(files_, folder_ / "one");
  EXPECT_EQ(text, read_text(files_, folder_ / "two"));
  EXPECT_EQ(record.bytes, text.size());
  EXPECT_EQ(record.crc32c, crc32c(std::as_bytes(std::span(text))));
  ASSERT_EQ(record.tensors.size(), 2u);
  for (const auto& [name, tensor] : record.tensors) {
    EXPECT_EQ(crc32c(std::as_bytes(std::span(text).subspan(tensor.offset, tensor.bytes))), tensor.crc32c) << name;
    EXPECT_EQ(std::memcmp(text.data() + tensor.offset, tensors.at(name).data(), tensor.bytes), 0) << name;
  }
}

TEST_F(SafetensorsTest, WrittenTensorsAreAlignedWhateverTheirSizes) {
  std::vector<std::int8_t> i8(3);
  std::vector<bfloat16> bf16(5);
  std::vector<double> f64(1);
  const NamedTensors tensors{{"a", Tensor::of(std::span(i8), {3})},
                             {"b", Tensor::of(std::span(bf16), {5})},
                             {"c", Tensor::of(std::span(f64), {1})}};
  const SafetensorsRecord record = write_safetensors(files_, folder_ / "a", tensors);
  for (const auto& [name, tensor] : record.tensors) {
    EXPECT_EQ(tensor.offset % bytes_per_element(tensors.at(name).dtype()), 0u) << name;
  }
}

TEST_F(SafetensorsTest, AFullDiskShowsBeforeAnythingIsWritten) {
  testing::FaultyFileSystem files;
  files.limit_space(1000);
  std::vector<float> values(1000);
  EXPECT_ERROR(write_safetensors(files, "/a", {{"t", Tensor::of(std::span(values), {1000})}}), WriteError,
               AllOf(HasSubstr("/a: cannot reserve 40"), HasSubstr("bytes: No space left on device")));
  EXPECT_EQ(files.used_bytes(), 0u);
}

TEST_F(SafetensorsTest, NoTensorsAtAll) {
  write_safetensors(files_, folder_ / "a", {});
  EXPECT_THAT(SafetensorsFile(folder_ / "a").names(), ElementsAre());
  EXPECT_THAT(raw("{}", "").names(), ElementsAre());
}

TEST_F(SafetensorsTest, UnalignedNumbersAreCopiedToAlignedMemory) {
  const float values[] = {1.0f, 2.0f};
  const std::string data = "\x07" + std::string(reinterpret_cast<const char*>(values), sizeof values);
  std::string header =
      R"({"i":{"dtype":"I8","shape":[1],"data_offsets":[0,1]},"f":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}})";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  put("raw", raw_file(header, data));
  const SafetensorsFile file(folder_ / "raw");
  const std::span<float> read = file.tensor("f").span<float>();
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(read.data()) % alignof(float), 0u);
  EXPECT_THAT(read, ElementsAre(1.0f, 2.0f));
  EXPECT_EQ(file.tensor("f").data(), read.data()) << "copied once";
  EXPECT_THAT(file.tensor("i").span<std::int8_t>(), ElementsAre(7));
}

TEST_F(SafetensorsTest, TypesWeDoNotReadAreRefusedOnlyWhenAskedFor) {
  put("raw", raw_file(R"({"u":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                      R"("b":{"dtype":"BOOL","shape":[1,1,1,1,1],"data_offsets":[2,3]},)"
                      R"("d":{"dtype":"I8","shape":[1,1,1,1,1],"data_offsets":[3,4]}})",
                      "abcd"));
  const SafetensorsFile file(folder_ / "raw");
  EXPECT_ERROR(file.tensor("u"), DataError, AllOf(HasSubstr("tensor \"u\""), HasSubstr("U8")));
  EXPECT_ERROR(file.tensor("b"), DataError, HasSubstr("BOOL"));
  EXPECT_ERROR(file.tensor("d"), DataError, HasSubstr("5 dimensions"));
  EXPECT_ERROR(file.tensor("x"), DataError, AllOf(HasSubstr("raw: no tensor \"x\""), HasSubstr("3")));
}

TEST_F(SafetensorsTest, MissingFile) {
  EXPECT_ERROR(SafetensorsFile(folder_ / "none"), MissingInputError, HasSubstr("none"));
  EXPECT_ERROR(SafetensorsFile(folder_.path()), MissingInputError, HasSubstr("not a regular file"));
}

TEST_F(SafetensorsTest, EveryTruncationIsRefused) {
  std::vector<float> values{1, 2, 3};
  write_safetensors(files_, folder_ / "a", {{"t", Tensor::of(std::span(values), {3})}});
  const std::string whole = read_text(files_, folder_ / "a");
  for (std::size_t length = 0; length < whole.size(); ++length) {
    put("cut", whole.substr(0, length));
    EXPECT_ERROR(SafetensorsFile(folder_ / "cut"), DataError, HasSubstr("cut: "));
  }
}

TEST_F(SafetensorsTest, HeaderLengthBeyondTheCapOrTheFile) {
  put("a", std::string("\xff\xff\xff\xff\xff\xff\xff\xff{}", 10));
  EXPECT_ERROR(SafetensorsFile(folder_ / "a"), DataError, HasSubstr("18446744073709551615 bytes, more than"));
  put("a", std::string("\x03\0\0\0\0\0\0\0{}", 10));
  EXPECT_ERROR(SafetensorsFile(folder_ / "a"), DataError, HasSubstr("a header of 3 bytes in a file of 10"));
}

TEST_F(SafetensorsTest, HeaderThatIsNotTheFormats) {
  expect_refused("", "", "does not begin with '{'");
  expect_refused(" {}", "", "does not begin with '{'");
  expect_refused("[]", "", "does not begin with '{'");
  expect_refused("{", "", "not valid JSON at byte");
  expect_refused("{} x", "", "not valid JSON at byte");
  expect_refused("{\"a\":}", "", "not valid JSON at byte");
  expect_refused(std::string("{}\0", 3), "", "not valid JSON at byte");
  expect_refused("{\"\xff\":{}}", "", "not valid JSON at byte");
  expect_refused(R"({"a":1})", "", R"("a": a number instead of an object)");
  expect_refused(R"({"a":null})", "", R"("a": null instead of an object)");
  expect_refused(R"({"a":true})", "", R"("a": a truth value instead of an object)");
  expect_refused(R"({"a":[]})", "", R"("a": an array instead of an object)");
  expect_refused(R"({"a":{}})", "", R"(tensor "a": no dtype)");
  expect_refused(R"({"a":{"dtype":"F32","data_offsets":[0,0]}})", "", R"(tensor "a": no shape)");
  expect_refused(R"({"a":{"dtype":"F32","shape":[0]}})", "", R"(tensor "a": no data_offsets)");
  expect_refused(R"({"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0],"x":1}})", "", R"(unknown field "x")");
  expect_refused(R"({"a":{"dtype":32,"shape":[0],"data_offsets":[0,0]}})", "", "a number where none belongs");
  expect_refused(R"({"a":{"dtype":["F32"],"shape":[0],"data_offsets":[0,0]}})", "", "an array where none belongs");
  expect_refused(R"({"a":{"dtype":"F32","shape":"[0]","data_offsets":[0,0]}})", "", "a string where none belongs");
  expect_refused(R"({"a":{"dtype":"F32","shape":[[0]],"data_offsets":[0,0]}})", "", "an array where none belongs");
  expect_refused(R"({"a":{"dtype":"F32","shape":[{}],"data_offsets":[0,0]}})", "", "an object where none belongs");
  expect_refused(R"({"a":{"dtype":"F32","shape":[0],"data_offsets":[0]}})", "", "has 1 numbers instead of 2");
  expect_refused(R"({"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0,0]}})", "", "has 3 numbers instead of 2");
  expect_refused(R"({"__metadata__":{"k":1}})", "", R"("__metadata__": a number where none belongs, at "k")");
  expect_refused(R"({"__metadata__":"x"})", "", R"("__metadata__": a string instead of an object)");
}

TEST_F(SafetensorsTest, DeepNestingStopsAtOnce) {
  expect_refused("{\"a\":{\"shape\":" + std::string(1'000'000, '['), "", "an array");
}

TEST_F(SafetensorsTest, NamesTwice) {
  const std::string entry = R"({"dtype":"I8","shape":[1],"data_offsets":[0,1]})";
  expect_refused(R"({"a":)" + entry + R"(,"a":)" + entry + "}", "x", R"(name "a" twice)");
  expect_refused(R"({"__metadata__":{},"__metadata__":{}})", "", R"(name "__metadata__" twice)");
  expect_refused(R"({"__metadata__":{"k":"1","k":"2"}})", "", R"(key "k" twice)");
  expect_refused(R"({"a":{"dtype":"I8","dtype":"I8","shape":[1],"data_offsets":[0,1]}})", "x", "dtype twice");
}

TEST_F(SafetensorsTest, UnknownTypeIsNamed) {
  expect_refused(R"({"a":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}})", "1234",
                 R"(tensor "a": unknown dtype "F33")");
  expect_refused(R"({"a\nb":{"dtype":"\n","shape":[1],"data_offsets":[0,4]}})", "1234",
                 R"("a\nb": unknown dtype "\n")");
}

TEST_F(SafetensorsTest, SizesThatAreNone) {
  expect_refused(R"({"a":{"dtype":"I8","shape":[-1],"data_offsets":[0,1]}})", "x", "negative number (-1)");
  expect_refused(R"({"a":{"dtype":"I8","shape":[1.0],"data_offsets":[0,1]}})", "x", "a fraction");
  expect_refused(R"({"a":{"dtype":"I8","shape":[18446744073709551616],"data_offsets":[0,1]}})", "x", "beyond 64 bits");
  expect_refused(R"({"a":{"dtype":"I8","shape":[9223372036854775808],"data_offsets":[0,1]}})", "x", "too large");
  expect_refused(R"({"a":{"dtype":"I8","shape":[1],"data_offsets":[-1,0]}})", "x", "negative number");
}

TEST_F(SafetensorsTest, ShapesThatOverflow) {
  expect_refused(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", "", "overflows");
  expect_refused(R"({"a":{"dtype":"F32","shape":[2305843009213693952],"data_offsets":[0,0]}})", "", "overflows");
  expect_refused(R"({"a":{"dtype":"I8","shape":[0,4611686018427387904,4],"data_offsets":[0,0]}})", "", "overflows");
}

TEST_F(SafetensorsTest, ShapeAndByteRangeMustAgree) {
  expect_refused(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", "1234",
                 R"(tensor "a": F32 of shape [2] needs 8 bytes, its data_offsets are [0, 4])");
  expect_refused(R"({"a":{"dtype":"F32","shape":[],"data_offsets":[0,0]}})", "", "needs 4 bytes");
  expect_refused(R"({"a":{"dtype":"I8","shape":[1],"data_offsets":[1,0]}})", "x", "its data_offsets are [1, 0]");
  expect_refused(R"({"a":{"dtype":"F4","shape":[1],"data_offsets":[0,0]}})", "", "F4 of shape [1]");
}

TEST_F(SafetensorsTest, OverlapsHolesAndTrailingBytes) {
  const auto two = [](int b0, int e0, int b1, int e1) {
    return fmt::format(R"({{"a":{{"dtype":"I8","shape":[{}],"data_offsets":[{},{}]}},)"
                       R"("b":{{"dtype":"I8","shape":[{}],"data_offsets":[{},{}]}}}})",
                       e0 - b0, b0, e0, e1 - b1, b1, e1);
  };
  EXPECT_NO_THROW(raw(two(0, 2, 2, 4), "abcd"));
  EXPECT_NO_THROW(raw(two(2, 4, 0, 2), "abcd")) << "order in the header is free";
  EXPECT_NO_THROW(raw(two(0, 4, 4, 4), "abcd")) << "an empty tensor at the end";
  expect_refused(two(0, 2, 1, 4), "abcd", R"(tensor "b": begins at byte 1 of the data, overlapping)");
  expect_refused(two(0, 2, 0, 2), "ab", "overlapping");
  expect_refused(two(0, 4, 2, 2), "abcd", "overlapping");
  expect_refused(two(0, 2, 3, 4), "abcd", R"(tensor "b": begins at byte 3 of the data, leaving a hole)");
  expect_refused(two(1, 2, 2, 4), "abcd", R"(tensor "a": begins at byte 1 of the data, leaving a hole)");
  expect_refused(two(0, 2, 2, 4), "abcde", "need 4 bytes of data, the file has 5");
  expect_refused(two(0, 2, 2, 4), "abc", "need 4 bytes of data, the file has 3 (truncated?)");
  expect_refused("{}", "x", "need 0 bytes of data, the file has 1");
  expect_refused(R"({"a":{"dtype":"I8","shape":[1],"data_offsets":[18446744073709551614,18446744073709551615]}})", "x",
                 "leaving a hole");
}

}  // namespace
}  // namespace tadapt
