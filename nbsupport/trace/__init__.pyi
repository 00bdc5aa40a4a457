from . import pictures as pictures
from . import words as words
from .trace import Trace as Trace
from .trace import open_trace as open_trace
from .tracer import Tracer as Tracer
