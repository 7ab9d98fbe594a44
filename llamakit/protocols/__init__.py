"""What the packages pass to one another, and what a plugin has to implement."""

from __future__ import annotations

from llamakit.protocols.checkpoints import (
    CatalogEntry,
    CatalogueEntry,
    Checkpoint,
    CheckpointCapabilities,
    Exporter,
    Finding,
    Parameter,
    RawRegion,
    RowOrder,
)
from llamakit.protocols.dialogs import (
    Dialog,
    Message,
    ParsedAnswer,
    PromptFormat,
    PromptFormatFactory,
    Role,
    TextFormat,
    ToolCall,
    ToolFormat,
)
from llamakit.protocols.generation import (
    Drafter,
    DrafterFactory,
    LogitsProcessor,
    LogitsProcessorFactory,
    OpenTokenizer,
    Row,
    Sampler,
    SamplerFactory,
    Tokenizer,
)

__all__ = [
    "CatalogEntry",
    "CatalogueEntry",
    "Checkpoint",
    "CheckpointCapabilities",
    "Dialog",
    "Drafter",
    "DrafterFactory",
    "Exporter",
    "Finding",
    "LogitsProcessor",
    "LogitsProcessorFactory",
    "Message",
    "OpenTokenizer",
    "Parameter",
    "ParsedAnswer",
    "PromptFormat",
    "PromptFormatFactory",
    "RawRegion",
    "Role",
    "Row",
    "RowOrder",
    "Sampler",
    "SamplerFactory",
    "TextFormat",
    "Tokenizer",
    "ToolCall",
    "ToolFormat",
]
