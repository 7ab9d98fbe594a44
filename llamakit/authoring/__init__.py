"""What writes the package of a new plugin, from the files in ``templates/``."""
