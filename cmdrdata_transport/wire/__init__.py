"""Bytes to documents: content coding, JSON, server-sent events. No I/O, no clock, no HTTP library."""
