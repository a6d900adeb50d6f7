"""What schemathesis does not know by itself: a join request is a signed text."""

import schemathesis


@schemathesis.serializer("application/jose")
def jose(ctx, value):
    return value if isinstance(value, bytes) else str(value).encode()
