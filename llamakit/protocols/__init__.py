"""What the packages pass to one another, and what a plugin has to implement."""

from llamakit.protocols.catalog import *  # noqa: F403
from llamakit.protocols.checkpoints import *  # noqa: F403
from llamakit.protocols.dialogs import *  # noqa: F403
from llamakit.protocols.exporters import *  # noqa: F403
from llamakit.protocols.generation import *  # noqa: F403
from llamakit.protocols.kernels import *  # noqa: F403
from llamakit.protocols.observers import *  # noqa: F403
from llamakit.protocols.runners import *  # noqa: F403
