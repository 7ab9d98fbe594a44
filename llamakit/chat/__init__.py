"""A conversation on a terminal.

``conversation`` is the dialog and what is dropped when the context is full, ``session_file`` keeps
it on disk, ``settings`` is what ``/set`` changes, ``commands`` are the words that begin with a
slash, ``terminal`` reads lines, ``repl`` is the loop that ties them together.
"""
