from .crash import Crash as Crash
from .crash import Frame as Frame
from .debugger import open_debugger as open_debugger
from .explanation import explain as explain
