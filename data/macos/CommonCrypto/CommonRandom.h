/* What mimalloc takes of a header of macOS that Zig's wheel does not have. */
#include <CommonCrypto/CommonCryptoError.h>
#include <stddef.h>

CCCryptorStatus CCRandomGenerateBytes(void *bytes, size_t count);
