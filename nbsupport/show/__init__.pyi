from .shown import Shown as Shown
from .shown import framed as framed
from .shown import table as table
