"""What a terminal has shown, and how a program on it has ended."""

from __future__ import annotations

import pexpect


class Shown(list):
    """Everything that a terminal has shown."""

    write = list.append

    def flush(self):
        pass

    def __str__(self):
        return "".join(self)


def ended(child):
    child.expect(pexpect.EOF)
    child.wait()
    return child.exitstatus
