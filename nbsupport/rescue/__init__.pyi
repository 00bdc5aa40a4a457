from .rescue import from_profraw as from_profraw
from .rescue import run as run
from .rescued import Rescued as Rescued
