"""The built-in plugins: each is found through ``entry_points.txt``, as anybody's is."""
