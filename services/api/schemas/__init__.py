"""What requests and answers look like: the source of /openapi.json."""
