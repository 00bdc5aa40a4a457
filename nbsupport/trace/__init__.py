"""What happens in time: one run under LLDB, one under a tracer of system calls, as tables."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
