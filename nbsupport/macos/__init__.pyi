from .build import MachOProgram as MachOProgram
from .build import build_program as build_program
