from . import headers as headers
from . import profdata as profdata
from .discovery import discover as discover
from .discovery import find as find
from .discovery import find_lldb as find_lldb
from .discovery import find_rustc as find_rustc
from .probe import Toolchain as Toolchain
from .store import install as install
