from . import infer as infer
from .layout import LAYOUTS as LAYOUTS
from .layout import Field as Field
from .layout import Layout as Layout
from .layout import changes as changes
from .layout import same_stride as same_stride
from .profraw import read as read
