# ruff: noqa: F821 - lit gives `config` and `lit_config`
"""Lit's configuration of the tests here: the compilers are parameters, as commands of a shell."""

from pathlib import Path

import lit.formats

config.name = "mixed records"
config.test_format = lit.formats.ShTest(execute_external=False)
config.suffixes = [".c"]
config.test_source_root = str(Path(__file__).parent)
config.test_exec_root = lit_config.params.pop("out")
config.substitutions += [(f"%{name}", command) for name, command in lit_config.params.items()]
