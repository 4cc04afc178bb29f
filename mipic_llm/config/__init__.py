"""Configuration: typed fields, presets, values derived from the model, checks, reading and help."""
# isort: skip_file

from mipic_llm.config.check import idle_flags, need, validate
from mipic_llm.config.derive import resolve, resolve_stages
from mipic_llm.config.fields import Section, nearest, opt
from mipic_llm.config.help import command_of, dump
from mipic_llm.config.points import parse_ladder, parse_point
from mipic_llm.config.presets import OBJECTIVES, PRESETS
from mipic_llm.config.read import from_settings, load_config, read_record
from mipic_llm.config.schema import Config, DataConfig, flatten
from mipic_llm.config.sizes import chain_hidden, derive_dims, narrow_dims, narrow_of, trained_dims
from mipic_llm.config.sources import SourceConfig

__all__ = [
    "OBJECTIVES", "PRESETS", "Config", "DataConfig", "Section", "SourceConfig", "chain_hidden",
    "command_of", "derive_dims", "dump", "flatten", "from_settings", "idle_flags", "load_config",
    "narrow_dims", "narrow_of", "nearest", "need", "opt", "parse_ladder", "parse_point",
    "read_record", "resolve", "resolve_stages", "trained_dims", "validate",
]  # fmt: skip
