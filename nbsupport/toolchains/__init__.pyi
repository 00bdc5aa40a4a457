from . import headers as headers
from . import profdata as profdata
from .discovery import discover as discover
from .discovery import find as find
from .discovery import find_lldb as find_lldb
from .discovery import find_rustc as find_rustc
from .download import install as install
from .probe import Toolchain as Toolchain
