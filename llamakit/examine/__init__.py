"""Says what a checkpoint is, whether it is complete, and how it differs from another.

``verify`` reads every file (``folders`` says which, ``contents`` what is looked for in a file's
bytes, ``deep_checks`` what only all files together show) and returns a ``verify_report``.
``inspect`` says from the indexes alone what a checkpoint is, with ``memory_estimate`` for what a
rank of it needs. ``diff`` goes through two checkpoints parameter by parameter; ``values`` compares
two runs of values. Long work is a generator of ``steps`` that returns its report.
"""
