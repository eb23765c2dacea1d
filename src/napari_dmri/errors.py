"""What can go wrong, said in words that a user can act on."""

from __future__ import annotations

__all__ = ["Cancelled", "DmriWarning", "InputError"]


class InputError(ValueError):
    """Refuse an input: one sentence with what was given, what was expected, and the remedy."""


class Cancelled(Exception):
    """Stop a computation on request; raised by a progress callable, never caught by the maths."""


class DmriWarning(UserWarning):
    """Tell about data that were used after a change (normalised, masked, capped), with counts."""
