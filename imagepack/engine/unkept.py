"""A result that the memo does not keep; apart from the memo, so that a function need not depend on that."""


class Unkept(bytes):
    """A result that holds for this run alone, such as one for want of memory."""
