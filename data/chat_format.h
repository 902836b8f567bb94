// How a conversation becomes one text: the chat formats.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace tadapt {

class Tokenizer;

/// deepseek  BOS [system] then per turn `<｜User｜>`question, `<｜Assistant｜>`response. A response's leading "<think>
/// "
///           becomes "<think>\n". The last response ends the text, without EOS; earlier ones lose everything up to
///           their last "</think>" and end with EOS, as in the model's own template. Prompts end with
///           `<｜Assistant｜><think>\n`.
/// qwen      per turn `<|im_start|>`role`\n`text`<|im_end|>\n`, role being system, user or assistant. No BOS, and no
///           system turn of its own. Prompts end with `<|im_start|>assistant\n`.
/// plain     the texts with an empty line between them; BOS before and EOS after where the tokenizer adds them, but no
///           second BOS before a text that begins with it. Prompts end with the empty line.
/// Markers inside a conversation's texts are markers too, as in transformers' apply_chat_template.
enum class ChatFormat { kDeepseek, kQwen, kPlain };

enum class Role { kSystem, kUser, kAssistant };

struct Turn {
  Role role;
  std::string text;
};

/// A conversation as a text to encode. BOS and markers are written out: nothing is to be put before the ids.
struct ChatText {
  std::string text;
  std::size_t response_begin = 0;  ///< byte at which the last response begins
};

/// Renders conversations: an optional system turn, then user and assistant turns by turns. Immutable, so threads may
/// share it; the tokenizer must outlive it.
class ChatRenderer {
 public:
  /// ConfigError naming the token when `tokenizer` lacks one that `format` writes.
  ChatRenderer(ChatFormat format, const Tokenizer& tokenizer);

  /// `turns` ends with an assistant turn.
  ChatText render(const std::vector<Turn>& turns) const;
  /// What a model is given to answer; `turns` ends with a user turn.
  std::string prompt(const std::vector<Turn>& turns) const;

 private:
  std::string begin(const Turn& first) const;
  void append(const Turn& turn, std::string& text) const;
  void open_response(std::string& text) const;

  ChatFormat format_;
  const Tokenizer& tokenizer_;
};

}  // namespace tadapt
