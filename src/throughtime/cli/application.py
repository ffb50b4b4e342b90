"""The application that the commands are put into; torch is imported when a command runs, not before."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from throughtime.version import __version__

app = App(
    name="throughtime",
    version=__version__,
    help="Train recurrent networks, and see how far back they learn.",
    help_epilogue="Start: throughtime train --text machine --split none. With --debug an error shows where it arose.",
    help_format="plaintext",
    exit_on_error=False,
    print_error=False,
    result_action="return_value",
    suppress_keyboard_interrupt=False,
    default_parameter=Parameter(negative=""),
)

Words = Annotated[str, Parameter(allow_leading_hyphen=True)]
"""A text of the user's, which may begin with a hyphen."""
