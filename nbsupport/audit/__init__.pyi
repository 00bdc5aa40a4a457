from . import fate as fate
from .fate import LinkPiece as LinkPiece
from .guard import refused as refused
from .judge import audit as audit
from .objects import read as read
