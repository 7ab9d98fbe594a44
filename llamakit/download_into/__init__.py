"""Downloads a model into another format or number of shards, without storing the source.

``target_format`` reads what is asked for. ``source_index`` fetches the indexes of the shards, from
which the plan of a usual conversion is made; ``scattered_part`` writes each shard, as it arrives,
where that plan wants its bytes, and reads it back from there for its checksum. ``session`` does it
in a ``resumable_folder``, and completes the files when all shards are verified.
"""
