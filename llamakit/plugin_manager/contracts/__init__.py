"""What each kind of plugin has to return, written once.

A contract is a function that says what is wrong in half a sentence, such as ``returned list;
expected …``, or nothing. The run-time guards raise it as a ``PluginError`` that names the plugin;
``llamakit.testing`` raises it for the plugin's author.
"""
