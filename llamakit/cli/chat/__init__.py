"""``llamakit chat``.

``command`` declares it, ``repl`` is the loop, ``chat`` the state between two lines,
``conversation`` the dialog and what is dropped when the context is full, ``answer_settings`` what
``/set`` changes, ``slash_commands`` what begins with a slash, ``session_file`` a saved dialog,
``line_reader`` where lines come from.
"""
