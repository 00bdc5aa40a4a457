from .verdict import Forecast as Forecast
from .verdict import check_compilers as check_compilers
from .verdict import check_project as check_project
