from . import upstream as upstream
