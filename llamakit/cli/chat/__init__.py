"""``llamakit chat``.

``command`` declares the options, ``repl`` is the loop, ``chat`` generates the answers,
``conversation`` is the dialog and drops its oldest exchanges when the context is full,
``answer_settings`` are the settings of ``/set``, ``slash_commands`` the commands, ``session_file``
saves a dialog, ``line_reader`` reads from a terminal or a pipe.
"""
