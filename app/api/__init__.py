"""The HTTP edge: one file per resource, request and response shapes beside their routes."""
