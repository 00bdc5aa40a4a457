from .phases import PgoBuild as PgoBuild
from .phases import build as build
