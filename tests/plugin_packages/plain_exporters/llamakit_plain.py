"""Exporters that know nothing of llamakit.json: one writes a folder, the other one file."""

from llamakit import hookimpl


def export_folder(checkpoint, destination, options):
    (destination / "deep").mkdir(parents=True)
    (destination / "deep" / "weights.txt").write_text(repr(sorted(checkpoint.parameters)))
    return {"files": ["no", {"name": 3}]}


def export_file(checkpoint, destination, options):
    destination.write_text(repr(sorted(checkpoint.parameters)))
    return {"options": sorted(options)}


@hookimpl
def register_exporters(exporters):
    exporters.register("plain-folder", export_folder, help="names in a folder")
    exporters.register("plain-file", export_file, help="names in a file")
