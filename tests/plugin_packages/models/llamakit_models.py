"""A model of a stranger's in the download catalogue."""

from llamakit import hookimpl


@hookimpl
def register_models(models):
    entry = {
        "names": ["the-small-one"],
        "folder": "small/1b",
        "root_files": ["TERMS.txt"],
        "tokenizer_files": [],
    }
    models.register("Small-1B", entry, help="A model for tests")
