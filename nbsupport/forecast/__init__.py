"""What a build will do: which compilers it calls, what they instrument, what to set."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
