from . import reproducer as reproducer
from . import upstream as upstream
