"""Prompts that sources of the training data have of their own: under which names a model keeps
them, and which of them its validation and its users would miss."""

from __future__ import annotations

from mipic_llm.config import Config
from mipic_llm.model.source import Source, prompts_by_kind

_KINDS = ("query", "document")


def prompts_of_sources(config: Config) -> dict[str, str]:
    """By name, of the sources of all stages: NAME is the prompt of a source's anchors, and
    NAME-document that of its other texts."""
    found: dict[str, str] = {}
    for source in config.own_sources:
        if not source.name or source.name in _KINDS:
            continue
        if source.query_prompt:
            found[source.name] = source.query_prompt
        if source.document_prompt:
            found[f"{source.name}-document"] = source.document_prompt
    return found


def prompt_notes(config: Config, source: Source) -> list[str]:
    """Lines on sources whose prompts are lost for want of a name, and on a prompt of validation and
    export with which nothing is trained. source: the base."""
    nameless = [s.path for s in config.own_sources if (s.query_prompt or s.document_prompt)
                and (not s.name or s.name in _KINDS)]  # fmt: skip
    notes = [f"{path}: its own prompts are kept by no name in the export; give it a name other "
             "than query and document" for path in nameless]  # fmt: skip
    used = prompts_by_kind(source, config.data)
    for kind in _KINDS:
        trained = {getattr(s, f"{kind}_prompt", None) for s in config.training}
        asked = [text for text in trained if text is not None]
        if len(asked) == len(trained) and used[kind] not in asked:
            texts = ", ".join(map(repr, sorted(asked)))
            notes.append(f"{kind} texts are trained with {texts} alone, and validation and the "
                         f"export's {kind} prompt have {used[kind]!r}; --data.{kind}_prompt "
                         "changes that")  # fmt: skip
    return notes
