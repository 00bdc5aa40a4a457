"""The raw-profile ABI: every version's layout, a reader of raw profiles, the audit of files."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
