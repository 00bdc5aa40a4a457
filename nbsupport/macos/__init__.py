"""Programs of macOS, on Linux: built by real compilers, executed by an emulated processor."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
