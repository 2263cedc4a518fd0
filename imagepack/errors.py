"""The one exception for what a user can mend."""


class InputError(Exception):
    """The user's data, parameters or machine are at fault; the message names the fault and the fix."""
