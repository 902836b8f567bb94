// The three formats, written out turn by turn.
#include "data/chat_format.h"

#include <array>
#include <string_view>

#include "data/tokenizer.h"
#include "kernels/core/error.h"

namespace tadapt {
namespace {

constexpr std::string_view kUser = "<｜User｜>";
constexpr std::string_view kAssistant = "<｜Assistant｜>";
constexpr std::string_view kTurnStart = "<|im_start|>";
constexpr std::string_view kTurnEnd = "<|im_end|>";
constexpr std::string_view kThink = "<think>";
constexpr std::string_view kEndThink = "</think>";
constexpr std::string_view kParagraph = "\n\n";

std::string_view role_name(Role role) {
  return role == Role::kSystem ? "system" : role == Role::kUser ? "user" : "assistant";
}

void require_token(const Tokenizer& tokenizer, std::string_view token, std::string_view format) {
  if (tokenizer.id_of(std::string(token))) return;
  throw ConfigError("chat format {} needs the token {}, which {} lacks", format, token, tokenizer.file());
}

std::string with_think_newline(const std::string& response) {
  if (!response.starts_with("<think> ")) return response;
  return std::string(kThink) + "\n" + response.substr(kThink.size() + 1);
}

std::string without_thinking(const std::string& response) {
  const std::size_t end = response.rfind(kEndThink);
  return end == std::string::npos ? response : response.substr(end + kEndThink.size());
}

}  // namespace

ChatRenderer::ChatRenderer(ChatFormat format, const Tokenizer& tokenizer) : format_(format), tokenizer_(tokenizer) {
  if (format == ChatFormat::kDeepseek) {
    if (tokenizer.bos().empty())
      throw ConfigError("chat format deepseek needs a bos_token, which {} lacks", tokenizer.file());
    for (const std::string_view token : {kUser, kAssistant}) require_token(tokenizer, token, "deepseek");
  } else if (format == ChatFormat::kQwen) {
    for (const std::string_view token : {kTurnStart, kTurnEnd}) require_token(tokenizer, token, "qwen");
  }
}

std::string ChatRenderer::begin(const Turn& first) const {
  if (format_ == ChatFormat::kDeepseek) return tokenizer_.bos();
  const bool adds = format_ == ChatFormat::kPlain && tokenizer_.adds_bos() && !first.text.starts_with(tokenizer_.bos());
  return adds ? tokenizer_.bos() : "";
}

/// A whole turn that another one follows.
void ChatRenderer::append(const Turn& turn, std::string& text) const {
  if (format_ == ChatFormat::kPlain) {
    text += turn.text;
    text += kParagraph;
  } else if (format_ == ChatFormat::kQwen) {
    for (const std::string_view part : {kTurnStart, role_name(turn.role), std::string_view("\n"),
                                        std::string_view(turn.text), kTurnEnd, std::string_view("\n")}) {
      text += part;
    }
  } else if (turn.role == Role::kAssistant) {
    if (tokenizer_.eos().empty()) {
      throw DataError("several turns in chat format deepseek need an eos_token, which {} lacks", tokenizer_.file());
    }
    text += std::string(kAssistant) + without_thinking(turn.text) + tokenizer_.eos();
  } else {
    text += (turn.role == Role::kUser ? std::string(kUser) : std::string()) + turn.text;
  }
}

void ChatRenderer::open_response(std::string& text) const {
  if (format_ == ChatFormat::kDeepseek) text += kAssistant;
  if (format_ == ChatFormat::kQwen) text += std::string(kTurnStart) + "assistant\n";
}

ChatText ChatRenderer::render(const std::vector<Turn>& turns) const {
  ChatText chat;
  chat.text = begin(turns.front());
  for (std::size_t i = 0; i + 1 < turns.size(); ++i) append(turns[i], chat.text);
  open_response(chat.text);
  chat.response_begin = chat.text.size();
  const std::string& response = turns.back().text;
  chat.text += format_ == ChatFormat::kDeepseek ? with_think_newline(response) : response;
  if (format_ == ChatFormat::kQwen) chat.text += std::string(kTurnEnd) + "\n";
  if (format_ == ChatFormat::kPlain && tokenizer_.adds_eos()) chat.text += tokenizer_.eos();
  return chat;
}

std::string ChatRenderer::prompt(const std::vector<Turn>& turns) const {
  std::string text = begin(turns.front());
  for (const Turn& turn : turns) append(turn, text);
  open_response(text);
  if (format_ == ChatFormat::kDeepseek) text += std::string(kThink) + "\n";
  return text;
}

}  // namespace tadapt
