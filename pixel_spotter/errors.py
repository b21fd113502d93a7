"""The one exception that commands show their user as a single line, and where errors come from."""

from collections.abc import Iterator


class UserError(ValueError):
    """Something its user can put right: the message says what is wrong and what to do."""


class BadValueError(UserError):
    """A setting's value is none that it can have, whatever the others are."""


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, and what it was raised from or during, each once: a chain may be a circle.

    It is one where a writer's thread has failed, whose error is raised again at each attempt.
    """
    seen: list[BaseException] = []
    while error is not None and not any(error is one for one in seen):
        yield error
        seen.append(error)
        error = error.__cause__ or error.__context__
