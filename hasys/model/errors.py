"""What a caller may do about a failure. Few classes, one question each: try again, mend the input, or give up?"""

from __future__ import annotations


class HasysError(Exception):
    """Base; its text is one clear line: what, where, how to mend."""


class Refused(HasysError):
    """The request is wrong or unsafe as it stands; nothing changed. Mend it, do not repeat it."""


class Conflict(Refused):
    """The object changed since it was read: read again, then decide again."""


class NotFound(Refused):
    """No such object."""


class Unavailable(HasysError):
    """No leader, or no server reached: nothing changed; the same call may succeed later."""


class NoMajority(Unavailable):
    """A server answered: for some seconds there has been no leader, so a majority is missing. Waiting does not help."""


class Unreached(Unavailable):
    """No server answered at all, not even to say that there is no leader."""


class Unknown(HasysError):
    """The answer was lost: the change may or may not have happened. Read before repeating."""


class TimedOut(Unknown):
    """The deadline passed; the text says what is still under way."""


class ConfigRefused(Refused):
    """A configuration file is wrong: the text carries file, field and how to mend it."""
