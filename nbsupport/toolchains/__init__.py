"""The compilers: found, asked, installed."""
