"""The one exception that commands show to their user as a single line."""


class UserError(ValueError):
    """Something its user can put right: the message says what is wrong and what to do."""


class BadValueError(UserError):
    """A setting's value is none that it can have, whatever the others are."""
