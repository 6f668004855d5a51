"""A provider on the loopback interface, and the real SDKs called against it: the demo, and what tests use."""
