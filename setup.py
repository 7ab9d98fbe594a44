"""The description on the package index: README.md with absolute links."""

import re
from pathlib import Path

from setuptools import setup

PROJECT = "https://github.com/llamakit/llamakit"
RELATIVE = re.compile(r"(!?)(\[[^\]]*\])\((?!https?:|#)([^)]+)\)")


def absolute(text: str) -> str:
    """Make the relative links and pictures of a page absolute."""
    pages = f"{PROJECT}/blob/main/"
    files = f"{PROJECT.replace('github.com', 'raw.githubusercontent.com')}/main/"
    return RELATIVE.sub(
        lambda link: f"{link[1]}{link[2]}({files if link[1] else pages}{link[3]})", text
    )


readme = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
setup(long_description=absolute(readme), long_description_content_type="text/markdown")
