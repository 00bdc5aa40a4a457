from .build import MachOProgram as MachOProgram
from .build import build_program as build_program
from .emulator import Emulated as Emulated
from .emulator import emulate as emulate
