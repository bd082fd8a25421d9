"""The one exception that stands for a mistake of the user's."""


class UserError(Exception):
    """Something the user can mend: its text is one sentence that says what, where and what to do.

    A command prints it on stderr and ends with status 1; `debug=true` shows the traceback as well.
    """
