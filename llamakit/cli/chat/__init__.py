"""``llamakit chat``.

``command`` declares the options, ``repl`` is the loop, ``chat`` generates the answers,
``conversation`` is the dialog and leaves out of a prompt what does not fit, ``answer_settings`` are
the settings of ``/set``, ``slash_commands`` the commands, ``session_file`` saves a dialog,
``rescue`` does so when the chat is killed, ``line_reader`` reads from a terminal or a pipe,
``line_history`` keeps what was typed.
"""
