"""Configuration: typed fields, presets, values derived from the model, checks, reading and help."""
# isort: skip_file

from mipic_llm.config.check import idle_flags, need, validate
from mipic_llm.config.derive import resolve, resolve_stages
from mipic_llm.config.sizes import (
    chain_hidden,
    derive_dims,
    derive_ladder,
    derive_ratios,
    narrow_dims,
    trained_dims,
)
from mipic_llm.config.fields import Section, nearest, opt
from mipic_llm.config.help import command_of, dump
from mipic_llm.config.points import figure_name, parse_ladder, parse_point
from mipic_llm.config.presets import OBJECTIVES, PRESETS
from mipic_llm.config.read import ALIASES, from_settings, load_config, read_record
from mipic_llm.config.sources import SourceConfig
from mipic_llm.config.schema import (OPTIONS, SECTIONS, Config, DataConfig, LoraSettings,
                                     ModelConfig, flatten)  # fmt: skip

__all__ = [
    "ALIASES", "Config", "DataConfig", "LoraSettings", "ModelConfig", "OBJECTIVES", "OPTIONS",
    "PRESETS", "SECTIONS", "Section", "SourceConfig", "chain_hidden", "command_of",
    "derive_dims", "derive_ladder", "derive_ratios", "dump", "figure_name", "flatten", "idle_flags",
    "from_settings", "load_config", "narrow_dims", "nearest", "need", "opt", "parse_ladder",
    "parse_point", "read_record", "resolve", "resolve_stages", "trained_dims", "validate",
]  # fmt: skip
