"""Configuration: typed fields, presets, values derived from the model, checks, reading and help."""
