"""Desktop access: show a picture's folder, on this machine alone."""

from __future__ import annotations

import shutil
import subprocess
import sys

from clipkit.explore.library import Library


def show_folder(library: Library, id_: int) -> str:
    """What happened, in a sentence. The system's own program gets the folder, never the picture."""
    file = library.file_of(id_)
    if file is None:
        return "The picture is not there."
    program = {"darwin": "open", "win32": "explorer"}.get(sys.platform, "xdg-open")
    found = shutil.which(program)
    if found is None:
        return f"There is no {program} on this machine to show a folder with."
    subprocess.Popen(
        [found, str(file.parent)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    return "The folder is being opened."
