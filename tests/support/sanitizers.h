// TADAPT_ADDRESS_SANITIZER: defined where AddressSanitizer watches this build, GCC's or clang's.
#pragma once

#if defined(__SANITIZE_ADDRESS__)
#define TADAPT_ADDRESS_SANITIZER
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TADAPT_ADDRESS_SANITIZER
#endif
#endif
