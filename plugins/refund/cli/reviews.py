"""``refund review`` and ``refund quality``: people's verdicts, and the accuracy that they show."""
