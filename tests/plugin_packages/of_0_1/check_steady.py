"""The tests that the plugin's author wrote with the kit of 0.1."""

from __future__ import annotations

from llamakit_steady import (
    MODEL,
    export_names,
    plain,
    repeat_last,
    steady,
    steady_names,
    unrepeated,
)

from llamakit.testing import (
    check_catalogue_entry,
    check_checkpoint_tool,
    check_drafter,
    check_exporter,
    check_logits_processor,
    check_plugin,
    check_prompt_format,
    check_sampler,
)


def check_all(checkpoint):
    check_plugin("llamakit_steady")
    check_sampler(steady, share=0.9)
    check_logits_processor(unrepeated)
    check_prompt_format(plain)
    check_exporter(export_names)
    check_drafter(repeat_last)
    check_catalogue_entry(MODEL)
    check_checkpoint_tool(steady_names, checkpoint)


if __name__ == "__main__":
    import sys

    check_all(sys.argv[1])
