// EXPECT_ERROR: a statement throws exactly this error, with these words in its one line.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "kernels/core/error.h"

/// `matcher` is a gmock matcher (or plain HasSubstr text) for the message, which must be a single line.
#define EXPECT_ERROR(statement, ErrorType, matcher)                                       \
  do {                                                                                    \
    bool thrown_as_expected = false;                                                      \
    try {                                                                                 \
      statement;                                                                          \
    } catch (const ErrorType& error) {                                                    \
      thrown_as_expected = true;                                                          \
      EXPECT_THAT(std::string(error.what()), matcher);                                    \
      EXPECT_THAT(std::string(error.what()), ::testing::Not(::testing::HasSubstr("\n"))); \
    } catch (const std::exception& error) {                                               \
      thrown_as_expected = true;                                                          \
      ADD_FAILURE() << "another exception than " #ErrorType ": " << error.what();         \
    }                                                                                     \
    EXPECT_TRUE(thrown_as_expected) << "no exception from: " #statement;                  \
  } while (false)
