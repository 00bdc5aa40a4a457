/* What mimalloc takes of a header of macOS that Zig's wheel does not have. */
#ifndef COMMON_CRYPTO_ERROR_H
#define COMMON_CRYPTO_ERROR_H

#include <stdint.h>

typedef int32_t CCCryptorStatus;
enum { kCCSuccess = 0 };

#endif
