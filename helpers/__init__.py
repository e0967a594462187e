"""Modules of the scripts. Here: errors that the user can fix, and settings of the process.

Import this package before torch, which reads GOMP_SPINCOUNT when it is imported.
"""

import contextlib
import ctypes
import os
import sys

# A thread of torch that waits for another one keeps its core busy. With this limit it sleeps after 5,000 turns, so that
# training stays fast on a machine with other work.
os.environ.setdefault("GOMP_SPINCOUNT", "5000")


class UserError(Exception):
    """An error that the user can fix. The message is one sentence: what is wrong and what to do."""


def keep_freed_memory():
    """Tell glibc to keep freed memory, because each training step needs blocks of the same sizes again.

    A step takes 5 to 25 % longer without this. With another C library, nothing changes.
    """
    with contextlib.suppress(AttributeError, OSError):
        set_option = ctypes.CDLL("libc.so.6").mallopt
        set_option(-3, 1 << 30)  # M_MMAP_THRESHOLD in bytes: smaller blocks come from the heap
        set_option(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD in bytes: the heap is not returned to the system


def run(main):
    """Call `main()`. End the process with one sentence and exit code 2 after an error that the user can fix."""
    try:
        main()
        return
    except UserError as error:
        message = str(error)
    except OSError as error:
        message = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    except (MemoryError, RuntimeError) as error:  # all errors of torch are RuntimeErrors
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        message = "there is not enough memory; use a smaller --batch-size or --max-len, or shorter input."
    except KeyboardInterrupt:
        message = "stopped; no file is half-written."
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
