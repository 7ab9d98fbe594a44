"""From a signed link to verified files.

``link`` reads what the user pasted, ``policy`` what it covers and until when; ``catalogue`` knows
the models. ``session`` works out what is missing (``plan``), by the ``lists`` that are here or the
server's, and has it fetched (``transfer``): workers claim ``segments`` of files, ask the ``server``
for the bytes and write them to a ``part_file``, which knows after a kill which of its blocks are
there; ``follower`` computes the md5 behind them.
"""
