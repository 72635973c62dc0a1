"""What both services are built from: tokens, errors, request log, limits, guards. No route of either."""
