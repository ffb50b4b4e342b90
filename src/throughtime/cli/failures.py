"""What went wrong, in one sentence that says what to do, and the exit code: 2 the user's input, 1 the job."""

from __future__ import annotations

import errno

from torch import OutOfMemoryError

from throughtime.finite import NonFiniteError

JOB = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.ENOMEM}
"""The errors of the operating system that no other flag or file would have avoided."""


def judge(error: Exception) -> tuple[str, int]:
    """The sentence of an error, and the exit code of the command that it ends."""
    if isinstance(error, NonFiniteError):
        return str(error), 1
    if isinstance(error, (MemoryError, OutOfMemoryError)) or "allocate memory" in str(error):
        return "The memory is full. Use fewer --streams, --steps or --units, or a smaller file.", 1
    if isinstance(error, OSError) and error.errno is not None:
        what = error.filename or "A file"
        if error.errno in JOB:
            advice = "Make room; a run that was saved goes on with --resume."
            return f"{what} cannot be written: {error.strerror}. {advice}", 1
        return f"{what} cannot be used: {error.strerror}. Give another path, or change its permissions.", 2
    if isinstance(error, (ValueError, TypeError, OSError)):
        return str(error), 2
    return f"throughtime failed, which is its own fault ({type(error).__name__}: {error}). See --debug.", 1
