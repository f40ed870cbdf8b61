"""How a command ends when it does not succeed: the exit code, what is wrong, and what to do about it.

Belongs here: the errors of the command line. Never here: printing them (`app`), or the gateway's own error tree.
"""

REFUSED = 1
"""The gateway was asked and said no, knows no such thing, or has not put the change in force everywhere."""

UNUSABLE = 2
"""Nothing was asked: the command line makes no sense, or the gateway cannot be reached."""


class CommandFailed(Exception):
    """A command that ends early. `message` says what is wrong, naming the field; `advice` what to do."""

    def __init__(self, message: str, advice: str = "", *, exit_code: int = REFUSED) -> None:
        self.message = message
        self.advice = advice
        self.exit_code = exit_code
        super().__init__(message)


class Misuse(CommandFailed):
    """What was typed, or a file that was named, makes no sense (exit code 2)."""

    def __init__(self, message: str, advice: str = "") -> None:
        super().__init__(message, advice, exit_code=UNUSABLE)


class Unreachable(CommandFailed):
    """The admin API does not answer, or something else does (exit code 2)."""

    def __init__(self, message: str, advice: str = "") -> None:
        super().__init__(message, advice, exit_code=UNUSABLE)


class Refusal(CommandFailed):
    """The admin API's own no. `code` is the stable error code, `revision` the present one if the answer names it."""

    def __init__(self, message: str, advice: str = "", *, code: str, revision: int | None = None) -> None:
        super().__init__(message, advice, exit_code=REFUSED)
        self.code = code
        self.revision = revision
