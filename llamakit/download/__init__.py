"""From a signed link to verified files.

``link`` parses what the user pasted, ``link_policy`` what it is signed for and until when;
``catalog`` has the models. ``session`` computes from the checklists which files are needed
(``inventory``); ``hub`` has them from a repository's list (``hub_repo``). ``fetcher`` verifies what
is on disk and fetches the rest: ``small_files`` with one request each, the shards with
``shard_download``. The threads of a ``transfer`` claim ``segments`` of files, request the bytes
(``http_client``, ``retry``) and write them to a ``part_file``, which records on disk which of its
blocks are written; ``hash_thread`` computes the checksum while they arrive. ``verified_files``
remembers between runs which files have been verified.
"""
