"""Folders that a command will write to, looked at before its work begins."""

from pathlib import Path

from core.errors import InputError


def refuse_file(folder: Path, *, param: str) -> None:
    """Refuse a place where no folder can be.

    Args:
        folder: It need not be there.
        param: Which option it was given by.

    Raises:
        InputError: If it is a file, or below one.
    """
    for part in (folder, *folder.absolute().parents):
        if part.exists():
            if not part.is_dir():
                raise InputError(f"{part} is a file: give a folder.", param=param)
            return


def make_folder(folder: Path, *, param: str) -> None:
    """Make a folder now, so that a place that cannot be written to is not found out after hours.

    Args:
        folder: It may be there.
        param: Which option it was given by.

    Raises:
        InputError: If it is a file, below one, or cannot be made.
    """
    refuse_file(folder, param=param)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be made ({error}): name another.", param=param
        ) from error
