"""Everything that llamakit raises on purpose.

    LlamakitError
     ├── CheckpointError            something on disk is not what it should be
     │    ├── NotACheckpointError   no such folder, an empty one, nothing that a plugin opens
     │    ├── MissingShardError     a gap in the numbers of the shards
     │    ├── DamagedFileError      truncated, an error page, a bad zip, a wrong size
     │    │    └── NotRegularFileError    a folder, a FIFO, a socket or a device (an OSError too)
     │    ├── UnsafePickleError     a pickle that asks for more than tensors
     │    ├── ParamsError           params.json: absent, not JSON, a wrong value
     │    └── ParametersError       parameters missing, extra or of another shape
     ├── ParallelError              a size that does not divide, a rank that died
     │    └── UnevenSplitError
     ├── TokenizerError             not a tokenizer, or not this checkpoint's
     ├── UnsupportedModelError      a model that the runtime does not support (yet)
     ├── NonFiniteError             NaN or infinity while generating
     ├── PromptError                a prompt or a dialog that cannot be answered
     │    ├── PromptTooLongError
     │    ├── SpecialTagError
     │    └── DialogError
     ├── FileFormatError            a file of prompts or a saved session that cannot be read
     │    └── InvalidJSONError      not JSON, or JSON that is too large or nested too deep
     ├── NoSpaceError               the disk has no room for what is to be written
     ├── DownloadError              a server that does not give what it should
     │    └── LinkExpiredError      the signed link has expired (exit status 3)
     ├── UsageError                 wrong arguments (exit status 2)
     │    ├── DestinationError      something is there already, or nothing can be made there
     │    ├── UnknownNameError      with "did you mean"
     │    ├── MissingExtraError     a package of an extra that is not installed
     │    ├── OptionError           an unknown option, a wrong type, a value out of range
     │    └── LinkError             a link that is mangled, truncated or for something else
     └── PluginError                a plugin that is broken where it is needed

Each message says what was found, where, what was expected and what to do. ``cli/main.py`` is the
one place that turns an error into a message and an exit status.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llamakit._distribution import install_command
from llamakit.argument_names import as_arguments
from llamakit.printable import listed, printable

INTERRUPTED_STATUS = 130
"""The exit status after Ctrl-C."""


class LlamakitError(Exception):
    """The base of every error that llamakit raises on purpose.

    Messages name options as commands have them (``--force``); as a string, an error names them as
    Python's functions do (``force=True``).
    """

    exit_status = 1

    @property
    def for_commands(self) -> str:
        """The message for somebody who has typed a command, and for messages that repeat it."""
        return super().__str__()

    def __str__(self) -> str:
        return as_arguments(self.for_commands)


class CheckpointError(LlamakitError):
    """Something on disk is not what it should be."""


class NotACheckpointError(CheckpointError):
    """A path that no plugin opens as a checkpoint."""


class MissingShardError(CheckpointError):
    """A gap in the numbers of the shards."""


class DamagedFileError(CheckpointError):
    """A file that is truncated, an error page, a bad zip or of a wrong size."""


class NotRegularFileError(DamagedFileError, OSError):
    """A folder, a FIFO, a socket or a device in the place of a file; an ``OSError`` too."""

    @property
    def for_commands(self) -> str:
        """The file, and why it is refused."""
        return f"{self.filename}: {self.strerror}"


class UnsafePickleError(CheckpointError):
    """A pickle that asks for more than a dict of tensors needs."""


class ParamsError(CheckpointError):
    """A params.json or config.json that is absent, not JSON or holds a wrong value."""


class ParametersError(CheckpointError):
    """Parameters that are missing, extra or of another shape than the params imply."""


class ParallelError(LlamakitError):
    """Ranks that cannot work together."""


class UnevenSplitError(ParallelError, ValueError):
    """A model parallel size that does not divide the model."""


class TokenizerError(LlamakitError):
    """A file that is no tokenizer, or not the tokenizer of this checkpoint."""


class UnsupportedModelError(LlamakitError):
    """A model that the runtime does not support."""


class NonFiniteError(LlamakitError):
    """NaN or infinity came out of the model."""


class PromptError(LlamakitError, ValueError):
    """A prompt or a dialog that cannot be answered."""


class PromptTooLongError(PromptError):
    """A prompt that fills the context."""


class SpecialTagError(PromptError):
    """A message whose text holds a tag of the prompt format."""


class DialogError(PromptError):
    """A dialog whose roles do not follow the prompt format."""


class FileFormatError(LlamakitError):
    """A file of prompts or a saved session that cannot be read."""


class InvalidJSONError(FileFormatError, ValueError):
    """JSON that cannot be parsed, or that is too large or nested too deep.

    Args:
        source: what it is from, as the subject of a sentence.
        reason: what is wrong, and where.
    """

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(f"{source} is not JSON ({reason})")
        self.reason = reason


class NoSpaceError(LlamakitError):
    """A disk without room for what is to be written."""


class DownloadError(LlamakitError):
    """A server that does not give what it should, however often it is asked."""


class LinkExpiredError(DownloadError):
    """A signed link that has expired: its time or its number of requests is used up."""

    exit_status = 3


LinkEndedError = LinkExpiredError
"""The name of ``LinkExpiredError`` in 0.1."""


class UsageError(LlamakitError, ValueError):
    """Wrong arguments."""

    exit_status = 2


class DestinationError(UsageError):
    """A destination that exists already, or that nothing can be made at."""


class MissingExtraError(UsageError):
    """Something needs a package of an extra of llamakit's, and it is not installed.

    Args:
        user: what needs it.
        package: what could not be imported.
        extra: the extra that installs it.
    """

    def __init__(self, user: str, package: str | None, extra: str) -> None:
        super().__init__(
            f"{user} needs the package {package}, which is not here: {install_command(extra)}"
        )


class UnknownNameError(UsageError):
    """A name that nothing has registered."""

    def __init__(
        self, kind: str, name: str, known: Iterable[str], *, off: Sequence[str] = ()
    ) -> None:
        """Suggest the name that was probably meant.

        Args:
            off: plugins that are switched off; what they would have registered is not known.
        """
        hint = suggestion(name, known)
        if name.replace("_", "-") in (plugin.replace("_", "-") for plugin in off):
            hint = f"; LLAMAKIT_DISABLE_PLUGINS switches off the plugin {name}"
        elif off:
            hint += f" (LLAMAKIT_DISABLE_PLUGINS switches off {', '.join(off)})"
        super().__init__(f"no {printable(kind)} is called {printable(name)!r}{hint}")


class OptionError(UsageError):
    """An option that does not exist, of a wrong type or out of range."""


class LinkError(UsageError):
    """A link that is mangled, truncated or for something else."""


class PluginError(LlamakitError):
    """A plugin that is broken where it is needed."""


def for_commands(error: BaseException) -> str:
    """Return the message of any error for somebody who has typed a command."""
    return error.for_commands if isinstance(error, LlamakitError) else str(error)


_LONGEST_NAME, _MOST_LISTED, _MOST_COMPARED = 60, 60, 1000
"""Of what somebody else names: a file, a plugin, a client."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return a hint at the known name that was probably meant, else list all of them.

    Returns:
        The end of a sentence, such as ``"; did you mean 'greedy'?"``.
    """
    import difflib  # seldom needed, and --help starts without it

    known = sorted(known)
    close = difflib.get_close_matches(name[:_LONGEST_NAME], known[:_MOST_COMPARED], n=1)
    if close:
        return f"; did you mean {printable(close[0])!r}?"
    names = listed(known, _MOST_LISTED, _LONGEST_NAME)
    return f"; there are: {names}" if known else "; there are none"
