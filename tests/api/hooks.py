"""Hooks for schemathesis: a serializer for join requests, which are signed text."""

import schemathesis


@schemathesis.serializer("application/jose")
def jose(ctx, value):
    return value if isinstance(value, bytes) else str(value).encode()
