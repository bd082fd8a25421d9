"""The one exception that stands for a mistake of the user's, and how foreign ones are quoted in it."""


class UserError(Exception):
    """Something the user can mend: its text is one sentence that says what, where and what to do.

    A command prints it on stderr and ends with status 1; `debug=true` shows the traceback as well.
    """


def first_line(error: BaseException) -> str:
    """The first line of an exception's text, or its kind if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
